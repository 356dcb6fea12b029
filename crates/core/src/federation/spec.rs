//! What a TrustDomain says of a remote trust domain.

use std::sync::Arc;
use std::time::Duration;

use super::candidate::Candidate;
use super::digest::Digest;
use super::endpoint::Endpoint;
use super::refusal::Refusal;
use crate::bundle::BundleFormat;
use crate::id::TrustDomain;

/// How long a polled bundle is trusted after it was confirmed last, if the TrustDomain does not specify it.
pub const DEFAULT_MAX_STALE: Duration = Duration::from_secs(24 * 3600);

/// What a TrustDomain says of a remote trust domain. Without an endpoint, its bundle comes from the TrustDomain alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSpec {
    trust_domain: TrustDomain,
    endpoint: Option<Endpoint>,
    bootstrap: Option<Arc<Bootstrap>>,
    max_stale: Duration,
}

/// A bundle in the TrustDomain (SPIFFE Federation, section 5.2.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bootstrap {
    pub(super) digest: Digest,
    pub(super) read: Result<Candidate, Refusal>,
    /// Whether it takes effect whatever its sequence is.
    pub(super) replace: bool,
}

impl RemoteSpec {
    /// A remote trust domain that is polled at `endpoint`, if there is one; without a bundle of its own, and with
    /// [`DEFAULT_MAX_STALE`].
    pub fn new(trust_domain: TrustDomain, endpoint: Option<Endpoint>) -> Self {
        Self { trust_domain, endpoint, bootstrap: None, max_stale: DEFAULT_MAX_STALE }
    }

    /// With a bundle document to begin with. One that differs from the one before takes effect if its sequence is higher
    /// than any that was seen, or if `replace` is set. One that cannot be read is a flag, not an error: what is kept stays.
    #[must_use]
    pub fn with_bootstrap(mut self, document: &[u8], replace: bool) -> Self {
        let read = Candidate::read(BundleFormat::Spiffe, &self.trust_domain, document);
        self.bootstrap = Some(Arc::new(Bootstrap { digest: Digest::of_json(document), read, replace }));
        self
    }

    /// With another time for which a polled bundle is trusted after it was confirmed last.
    #[must_use]
    pub fn with_max_stale(mut self, max_stale: Duration) -> Self {
        self.max_stale = max_stale;
        self
    }

    /// Whose bundle it is; known from here alone (SPIFFE Federation, section 5.1).
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Where its bundle is polled.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    /// How long a polled bundle is trusted after it was confirmed last.
    pub fn max_stale(&self) -> Duration {
        self.max_stale
    }

    pub(super) fn bootstrap(&self) -> Option<&Bootstrap> {
        self.bootstrap.as_deref()
    }
}
