//! What to fetch, how the endpoint is verified, and what came of it.

use std::fmt;

use jiff::Timestamp;

use super::Remote;
use super::endpoint::Endpoint;
use super::refusal::FetchError;
use super::spec::RemoteSpec;
use super::stored::StoredRemote;
use crate::bundle::Bundle;
use crate::id::{SpiffeId, TrustDomain};

/// What one poll fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollTarget {
    /// Whose bundle it is.
    pub trust_domain: TrustDomain,
    /// Where it is, and how the endpoint is authenticated.
    pub endpoint: Endpoint,
    /// Of what was kept when the poll began: its [`StoredRemote::revision`].
    pub revision: Option<u64>,
    /// Of a self-serving endpoint: the bundle that verifies it, the newest of its trust domain (SPIFFE Federation, section
    /// 5.2.2.4), also if it is stale. `None`: the public certificate authorities, or the bundle that is trusted of the trust
    /// domain of the endpoint's id.
    pub anchors: Option<Bundle>,
}

/// A document that an endpoint served. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The body of the answer, at most [`crate::bundle::MAX_BUNDLE_LENGTH`].
    pub document: Vec<u8>,
    /// The id in the server's X509-SVID, verified against the bundle of its trust domain; by `https_web` none.
    pub server_id: Option<SpiffeId>,
}

/// What came of a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// As [`poll_target`] returned it when the poll began.
    pub target: PollTarget,
    /// The document, or why there is none.
    pub result: Result<Fetched, FetchError>,
}

/// What a poll of `remote` fetches at `now`. `None`: it has no endpoint, claims an own trust domain, or has nothing that could
/// verify the endpoint.
pub fn poll_target(remote: &Remote<'_>, now: Timestamp) -> Option<PollTarget> {
    let endpoint = remote.spec.endpoint().filter(|_| !remote.is_own())?;
    let trust_domain = remote.spec.trust_domain();
    let anchors =
        if endpoint.is_self_serving(trust_domain) { Some(remote.endpoint_anchors(now)?.clone()) } else { None };
    let revision = remote.record().and_then(StoredRemote::revision);
    Some(PollTarget { trust_domain: trust_domain.clone(), endpoint: endpoint.clone(), revision, anchors })
}

impl PollTarget {
    /// Whether the poll is still what [`super::decide()`] asked for: of the endpoint in `spec`, and begun with the bundle that is kept.
    /// Of an endpoint whose key was revoked meanwhile, by a bundle in the TrustDomain, nothing is taken.
    pub(super) fn is_current(&self, spec: &RemoteSpec, stored: &StoredRemote) -> bool {
        self.trust_domain == *spec.trust_domain()
            && Some(&self.endpoint) == spec.endpoint()
            && self.revision == stored.revision()
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetched({} bytes, {:?})", self.document.len(), self.server_id)
    }
}
