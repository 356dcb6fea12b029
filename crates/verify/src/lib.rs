//! SPIFFE identities for Rust services.
//!
//! A [`Source`] holds what a workload has: its X509-SVIDs, and the bundles by which it verifies others. They come from a SPIFFE
//! Workload API, that of Countersign's agent or of any other implementation, and are replaced as they are renewed or withdrawn. From
//! it come configurations of [`rustls`] that need no restart, and validation of JWT-SVIDs. An [`Authorizer`] says which ids are
//! accepted, which a bundle alone cannot: it vouches for every id of its trust domain.
//!
//! A service that knows its callers:
//!
//! ```no_run
//! use axum::{Router, extract::ConnectInfo, routing::get};
//! use countersign_verify::{Authorizer, MtlsListener, PeerIdentity, Source};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let source = Source::from_env()?.ready().await?;
//! let callers = Authorizer::id("spiffe://shop.example/ns/web/sa/cart")?;
//! let app = Router::new().route("/", get(async |ConnectInfo(peer): ConnectInfo<PeerIdentity>| format!("hello {peer}\n")));
//! let listener = MtlsListener::bind("0.0.0.0:8443", source.mtls_server_config(callers)?).await?;
//! axum::serve(listener, app.into_make_service_with_connect_info::<PeerIdentity>()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | Feature | Brings |
//! |---|---|
//! | `workload-api` (default) | [`Source`]: credentials from a Workload API |
//! | `files` | [`Source::from_folder`]: credentials from the files that Countersign's agent writes |
//! | `tls` (default) | [`MtlsListener`] |
//! | `proofs` (default) | [`proof`]: requests whose sender is authenticated by a proof of possession |
//! | `proof-socket` | [`proof_socket`]: the messages of the agent's proof socket |
//! | `proof-client` | [`proof_socket::ProofSocket`]: proofs by the agent, which keeps the key |
//! | `layers` | [`layer`]: layers of tower that authenticate requests, and that prove those of this workload |
//! | `redis` | [`proof::RedisReplayCache`]: what replicas share, so that a proof is accepted once by all of them |
//! | `axum` | callers' identities in handlers of axum |
//! | `hyper` | [`MtlsConnector`] for clients of hyper |
//! | `tonic` | callers' identities in services of tonic; channels are made with [`MtlsConnector`] |
//! | `reqwest` | servers' identities in responses of reqwest |
//!
//! A feature never changes what is accepted.
//!
//! # Minimum supported Rust version
//!
//! 1.95. A newer one is asked for in a minor release at the earliest.

#[cfg(feature = "tls")]
mod authenticated;
mod authorizer;
#[cfg(feature = "hyper")]
mod connector;
#[cfg(feature = "layers")]
pub mod layer;
#[cfg(feature = "tls")]
mod listener;
mod peer;
#[cfg(feature = "proofs")]
pub mod proof;
#[cfg(feature = "proof-socket")]
pub mod proof_socket;
#[cfg(feature = "proofs")]
pub mod prover;
#[cfg(any(feature = "tls", feature = "layers"))]
mod refusal_log;
#[cfg(feature = "reqwest")]
mod reqwest_response;
#[cfg(feature = "workload-api")]
pub mod source;
pub mod tls;
pub mod validation;

#[cfg(feature = "tls")]
pub use authenticated::Authenticated;
pub use authorizer::{Authorizer, AuthorizerError};
#[cfg(feature = "hyper")]
pub use connector::{MtlsConnection, MtlsConnector, MtlsConnectorError};
pub use countersign_core::{
    bundle::{Bundle, BundleSet, DuplicateBundle},
    entitlement::{PathPattern, TemplateError},
    id::{IdError, SpiffeId, TrustDomain},
    jwt::{JwtClaims, JwtSvidError},
    wimse,
    wit::{WitClaims, WitSvidError},
    x509::X509SvidError,
};
#[cfg(feature = "tls")]
pub use listener::{MtlsListener, MtlsStream};
pub use peer::{PeerError, PeerIdentity};
#[cfg(feature = "workload-api")]
pub use source::{Source, SourceError};
pub use {jiff, rustls};
