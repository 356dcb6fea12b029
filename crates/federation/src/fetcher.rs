//! A fetch from the first connection to the document.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::bundle::Bundle;
use countersign_core::federation::{EndpointUrl, FetchError, Fetched, Observation, PollTarget, Profile};
use jiff::Timestamp;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::address::AddressPolicy;
use crate::connect::connect;
use crate::http::{Answer, get};
use crate::location::Location;
use crate::resolve::{Resolve, SystemResolver};
use crate::tls::{Tls, handshake};

/// The most redirects that one fetch follows.
pub const MAX_REDIRECTS: usize = 3;

/// How long a fetch takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the beginning to the last byte of the document, with all redirects.
    pub total: Duration,
    /// For a TCP connection to one address; a host may have several.
    pub connect: Duration,
}

/// Fetches bundle documents from bundle endpoints. Cheap to clone; holds no connections.
#[derive(Clone)]
pub struct Fetcher {
    policy: AddressPolicy,
    resolver: Arc<dyn Resolve>,
    tls: Tls,
    limits: Limits,
}

impl Default for Limits {
    /// Ten seconds in total, three for a connection.
    fn default() -> Self {
        Self { total: Duration::from_secs(10), connect: Duration::from_secs(3) }
    }
}

impl Fetcher {
    /// Calls the addresses that `policy` allows, with the resolver and the clock of the system.
    pub fn new(policy: AddressPolicy) -> Self {
        let tls = Tls::new(Arc::new(Timestamp::now));
        Self { policy, resolver: Arc::new(SystemResolver), tls, limits: Limits::default() }
    }

    /// With a resolver of one's own.
    #[must_use]
    pub fn with_resolver(mut self, resolver: impl Resolve + 'static) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// With a clock of one's own, by which certificates are verified.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.tls = Tls::new(Arc::new(now));
        self
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Fetches what `target` says. A self-serving `https_spiffe` endpoint is verified by the anchors in `target`, another one by
    /// `anchors`: the bundle that is trusted of the trust domain of the endpoint's id. Without such a bundle no `https_spiffe`
    /// endpoint is called.
    pub async fn fetch(&self, target: PollTarget, anchors: Option<&Bundle>) -> Observation {
        let fetched = timeout(self.limits.total, self.follow(&target, anchors)).await;
        Observation { target, result: fetched.unwrap_or(Err(FetchError::Timeout)) }
    }

    /// Each redirect is held to what the configured URL is held to: address, certificate, id.
    async fn follow(&self, target: &PollTarget, anchors: Option<&Bundle>) -> Result<Fetched, FetchError> {
        let is_self_serving = target.endpoint.is_self_serving(&target.trust_domain);
        let anchors = if is_self_serving { target.anchors.as_ref() } else { anchors };
        let (connector, server_id) = match &target.endpoint.profile {
            Profile::HttpsWeb { roots } | Profile::WimseDiscovery { roots } => (self.tls.web(roots)?, None),
            Profile::HttpsSpiffe { id } => (self.tls.spiffe(id, anchors)?, Some(id.clone())),
        };
        let url = match &target.endpoint.profile {
            Profile::HttpsWeb { .. } | Profile::HttpsSpiffe { .. } => target.endpoint.url.clone(),
            Profile::WimseDiscovery { .. } => self.discover(target, &connector).await?,
        };
        let mut location = Location::new(&url).ok_or(FetchError::Resolve)?;
        for _ in 0..=MAX_REDIRECTS {
            match self.call(&location, &connector).await? {
                Answer::Document(document) => return Ok(Fetched { document, server_id }),
                Answer::Redirect(to) => location = to,
            }
        }
        Err(FetchError::Redirect)
    }

    /// Where the trust bundle is. What the host of the trust domain's name answers itself is taken, and no redirect: nobody else
    /// can say it (WIMSE Trust Domain Discovery, draft 00).
    async fn discover(&self, target: &PollTarget, connector: &TlsConnector) -> Result<EndpointUrl, FetchError> {
        let location = Location::new(&target.endpoint.url).ok_or(FetchError::Resolve)?;
        match self.call(&location, connector).await? {
            Answer::Document(metadata) => {
                target.trust_domain.wimse_trust_bundle_url(&metadata).map_err(|_| FetchError::WrongMetadata)
            }
            Answer::Redirect(_) => Err(FetchError::Redirect),
        }
    }

    async fn call(&self, location: &Location, connector: &TlsConnector) -> Result<Answer, FetchError> {
        let stream = connect(location, &self.policy, &*self.resolver, self.limits.connect).await?;
        let stream = handshake(connector, location, stream).await?;
        get(stream, location).await
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, limits, .. } = self;
        f.debug_struct("Fetcher").field("policy", policy).field("limits", limits).finish_non_exhaustive()
    }
}
