//! What a workload has: its SVIDs, and the bundles by which it verifies others, kept up to date.

mod address;
mod builder;
mod credentials;
mod current;
mod error;
#[cfg(feature = "files")]
mod folder;
mod responses;
mod streams;
mod token;
mod token_cache;
mod wit;
mod wit_svid;

use std::{fmt, sync::Arc};

use countersign_core::{bundle::BundleSet, jwt::JwtClaims};
use jiff::Timestamp;
use rustls::{ClientConfig, ServerConfig, sign::CertifiedKey};
use tokio::task::JoinHandle;

pub use address::{Address, AddressError, ENDPOINT_SOCKET};
pub use builder::SourceBuilder;
pub use credentials::{X509Credentials, X509Svid};
pub use error::SourceError;
pub use token::{JwtSvid, TokenRequestError};
pub use wit_svid::WitSvid;

use crate::{
    Authorizer, tls,
    validation::{TokenError, validate_jwt_svid},
};
use current::{State, Watched};
use token_cache::{Standing, TokenCache};
use wit::Wit;

/// The credentials of this workload. Clones share them; when the last one is dropped, they are no longer kept up to date.
///
/// - The connection to the Workload API is made again, with growing delays, whenever it ends. What was received last stays in
///   use meanwhile.
/// - A response that breaks the specification is discarded as a whole, and what was received before stays in use.
/// - When the Workload API says that this workload has no identity, its SVIDs, X.509 bundles and JWT-SVIDs are dropped at once. JWT
///   bundles, WIT bundles and WIT-SVIDs are dropped when it refuses these too.
/// - WIT-SVIDs and their bundles are asked for once somebody needs them. A Workload API that has none does not affect the rest.
/// - When the runtime of Tokio in which it was made ends, nothing is used any more.
#[derive(Clone)]
pub struct Source(Arc<Inner>);

struct Inner {
    x509: Watched<X509Credentials>,
    jwt_bundles: Watched<BundleSet>,
    wit: Wit,
    tokens: TokenCache,
    /// Of the SVID that is presented; the first one otherwise.
    hint: Option<String>,
    tasks: Vec<JoinHandle<()>>,
}

/// Waits for changes of the SVIDs and X.509 bundles. None is missed between two waits.
#[derive(Debug)]
pub struct X509Changes {
    x509: Watched<X509Credentials>,
    seen: Option<State<X509Credentials>>,
}

impl Source {
    /// From the Workload API whose address is in the environment variable `SPIFFE_ENDPOINT_SOCKET` (SPIFFE Workload Endpoint, section
    /// 4). It need not be there yet.
    ///
    /// # Errors
    /// When the variable is missing or is not an address.
    ///
    /// # Panics
    /// Outside of a runtime of Tokio, which then keeps the credentials up to date.
    pub fn from_env() -> Result<Self, AddressError> {
        SourceBuilder::default().from_env()
    }

    /// From the Workload API at this address, such as `unix:///run/countersign/workload.sock`. As [`Self::from_env`].
    ///
    /// # Errors
    /// When it is not an address (SPIFFE Workload Endpoint, section 4).
    ///
    /// # Panics
    /// As [`Self::from_env`].
    pub fn from_address(address: &str) -> Result<Self, AddressError> {
        SourceBuilder::default().from_address(address)
    }

    /// From the files that Countersign's agent writes into this folder, such as `/run/countersign/credentials`. They need not be there
    /// yet. What is replaced is used within a second. JWT-SVIDs of callers can be validated where the agent writes bundle documents. A
    /// folder has one identity, so a hint does not apply.
    ///
    /// # Panics
    /// As [`Self::from_env`].
    #[cfg(feature = "files")]
    #[must_use]
    pub fn from_folder(folder: impl Into<std::path::PathBuf>) -> Self {
        SourceBuilder::default().from_folder(folder)
    }

    /// Options, before it is made.
    #[must_use]
    pub fn builder() -> SourceBuilder {
        SourceBuilder::default()
    }

    /// Waits until there is an X509-SVID, with the configured hint if there is one, however long that takes. Returns the source.
    ///
    /// # Errors
    /// When there will be none: the Workload API refuses to be asked.
    pub async fn ready(self) -> Result<Self, SourceError> {
        self.0.x509.first(|credentials| credentials.svid(self.0.hint.as_deref()).is_ok()).await?;
        Ok(self)
    }

    /// As [`Self::ready`], and until JWT-SVIDs of callers can be validated.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub async fn ready_to_validate_jwt_svids(self) -> Result<Self, SourceError> {
        self.0.jwt_bundles.first(|_| true).await?;
        self.ready().await
    }

    /// As [`Self::ready`], and until WITs of callers can be verified. A Workload API without WIT bundles never gets there.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub async fn ready_to_verify_wits(self) -> Result<Self, SourceError> {
        self.0.wit.bundles().first(|_| true).await?;
        self.ready().await
    }

    /// As [`Self::ready`], and until there is a WIT-SVID, with the configured hint if there is one. A workload whose keys stay in the
    /// agent never gets there: its proofs are made by the agent.
    ///
    /// # Errors
    /// As [`Self::ready`], and [`SourceError::NoIdentity`] for files, which hold none.
    pub async fn ready_to_prove(self) -> Result<Self, SourceError> {
        let svids = self.0.wit.svids().ok_or_else(no_wit_svids)?;
        svids.first(|svids| svids.svid(self.0.hint.as_deref(), None, Timestamp::now()).is_ok()).await?;
        self.ready().await
    }

    /// The SVIDs and X.509 bundles: a consistent pair.
    ///
    /// # Errors
    /// When there are none now.
    pub fn x509(&self) -> Result<Arc<X509Credentials>, SourceError> {
        self.0.x509.current()
    }

    /// The SVID that is presented to peers: the one with the configured hint, otherwise the first.
    ///
    /// # Errors
    /// When there are none now, or none has that hint.
    pub fn x509_svid(&self) -> Result<Arc<X509Svid>, SourceError> {
        let credentials = self.x509()?;
        credentials.svid(self.0.hint.as_deref())
    }

    /// The JWT authorities by trust domain.
    ///
    /// # Errors
    /// When there are none now.
    pub fn jwt_bundles(&self) -> Result<Arc<BundleSet>, SourceError> {
        self.0.jwt_bundles.current()
    }

    /// The WIT authorities by trust domain. The first call asks the Workload API for them, so they are there a moment later:
    /// [`Self::ready_to_verify_wits`] waits for that.
    ///
    /// # Errors
    /// When there are none now.
    pub fn wit_bundles(&self) -> Result<Arc<BundleSet>, SourceError> {
        self.0.wit.bundles().current()
    }

    /// The WIT-SVID by which this workload proves who it is, and its key: the one with the configured hint, otherwise the first. The first
    /// call asks the Workload API for it, so it is there a moment later: [`Self::ready_to_prove`] waits for that.
    ///
    /// # Errors
    /// When there is none now, none has that hint, or it has ended.
    pub fn wit_svid(&self) -> Result<Arc<WitSvid>, SourceError> {
        let svids = self.0.wit.svids().ok_or_else(no_wit_svids)?;
        let bundles = self.wit_bundles();
        match (svids.current(), bundles) {
            // The reason may be that there are no bundles.
            (Err(SourceError::Waiting { last: None }), Err(error)) => Err(error),
            (Err(error), _) => Err(error),
            (Ok(svids), bundles) => {
                let bundles = bundles.ok();
                svids.svid(self.0.hint.as_deref(), bundles.as_deref(), Timestamp::now())
            }
        }
    }

    /// Changes of the SVIDs and X.509 bundles from now on, withdrawals among them: for whoever keeps connections that should not outlive
    /// them. Make it before the handshake.
    #[must_use]
    pub fn x509_changes(&self) -> X509Changes {
        X509Changes { x509: self.0.x509.clone(), seen: Some(self.0.x509.current()) }
    }

    /// Validates a JWT-SVID of a caller for `audience`, which identifies this service.
    ///
    /// # Errors
    /// When it is not valid, or of an id that is not accepted.
    pub fn validate_jwt_svid(
        &self,
        token: &str,
        audience: &str,
        callers: &Authorizer,
    ) -> Result<JwtClaims, TokenError> {
        let bundles = self.jwt_bundles().map_err(|_| TokenError::NoBundles)?;
        validate_jwt_svid(token, audience, &bundles, callers, Timestamp::now())
    }

    /// A JWT-SVID of this workload for these audiences: from memory until half of its life, and no longer than the workload has the
    /// identity and the key that signed it is in the bundle.
    ///
    /// # Errors
    /// When none can be had, and none is in memory that is still valid.
    pub async fn jwt_svid(&self, audiences: &[&str]) -> Result<Arc<JwtSvid>, TokenRequestError> {
        let Inner { x509, jwt_bundles, hint, tokens, .. } = &*self.0;
        tokens.get(audiences, Standing { x509, jwt_bundles, hint: hint.as_deref() }, &Timestamp::now).await
    }

    /// New JWT-SVIDs of this workload for these audiences: of all its ids, or of the one that is named. Nothing is kept in memory.
    ///
    /// # Errors
    /// When none can be had.
    pub async fn fetch_jwt_svids(
        &self,
        audiences: &[&str],
        id: Option<&crate::SpiffeId>,
    ) -> Result<Vec<JwtSvid>, TokenRequestError> {
        self.0.tokens.fetch(audiences, id, Timestamp::now()).await
    }

    /// For a server that authenticates its callers by X509-SVID: [`tls::mtls_server_config`]. Set `alpn_protocols` yourself.
    ///
    /// # Errors
    /// When the provider of cryptography lacks TLS 1.3.
    pub fn mtls_server_config(&self, callers: Authorizer) -> Result<ServerConfig, rustls::Error> {
        tls::mtls_server_config(Arc::new(self.clone()), Arc::new(self.clone()), callers)
    }

    /// For a server whose callers prove who they are by other means: [`tls::tls_server_config`].
    ///
    /// # Errors
    /// When the provider of cryptography lacks TLS 1.3.
    pub fn tls_server_config(&self) -> Result<ServerConfig, rustls::Error> {
        tls::tls_server_config(Arc::new(self.clone()))
    }

    /// For a client that authenticates itself by X509-SVID: [`tls::mtls_client_config`].
    ///
    /// # Errors
    /// When the provider of cryptography lacks TLS 1.3.
    pub fn mtls_client_config(&self, servers: Authorizer) -> Result<ClientConfig, rustls::Error> {
        tls::mtls_client_config(Arc::new(self.clone()), Arc::new(self.clone()), servers)
    }

    /// For a client that proves who it is by other means: [`tls::tls_client_config`].
    ///
    /// # Errors
    /// When the provider of cryptography lacks TLS 1.3.
    pub fn tls_client_config(&self, servers: Authorizer) -> Result<ClientConfig, rustls::Error> {
        tls::tls_client_config(Arc::new(self.clone()), servers)
    }
}

impl X509Changes {
    /// Waits until the SVIDs or X.509 bundles are others than at the last call, or than when this was made.
    ///
    /// # Errors
    /// When there will be no other: the source is no longer kept up to date, or the Workload API refuses to be asked.
    pub async fn changed(&mut self) -> Result<(), SourceError> {
        self.x509.changed_since(&mut self.seen).await
    }
}

impl tls::Bundles for Source {
    fn x509_bundles(&self) -> Option<Arc<BundleSet>> {
        Some(Arc::clone(self.x509().ok()?.bundles()))
    }
}

impl tls::Svid for Source {
    fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.x509_svid().ok()?.certified_key()))
    }
}

#[cfg(feature = "proofs")]
impl crate::proof::Bundles for Source {
    fn jwt_bundles(&self) -> Option<Arc<BundleSet>> {
        self.jwt_bundles().ok()
    }

    fn wit_bundles(&self) -> Option<Arc<BundleSet>> {
        self.wit_bundles().ok()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("x509", &self.0.x509).field("jwt_bundles", &self.0.jwt_bundles).finish()
    }
}

fn no_wit_svids() -> SourceError {
    let reason = "the files of a workload hold no WIT-SVID: use a Workload API, or have proofs made by the agent";
    SourceError::NoIdentity { reason: reason.into() }
}
