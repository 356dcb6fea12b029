//! Layers of tower over `http::Request`.
//!
//! - [`AuthenticationLayer`] is for servers of hyper, axum and tonic: it decides who sent a request, and gives the service a
//!   [`Caller`](crate::proof::Caller) among the extensions of the request.
//! - [`ProofLayer`] is for clients of hyper and tower: it adds to each request the proof of who sent it and, where that is wanted, verifies
//!   who signed the response.
//!
//! A service that is called by signed requests, and signs its responses where it is asked to:
//!
//! ```no_run
//! # #[cfg(all(feature = "axum", feature = "tls", feature = "workload-api"))]
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Extension, Router, routing::post};
//! use countersign_verify::{
//!     Authorizer, MtlsListener, PeerIdentity, Source,
//!     layer::AuthenticationLayer,
//!     proof::{Authenticator, Caller},
//!     wimse::Audience,
//! };
//!
//! let source = Source::from_env()?.ready_to_prove().await?;
//! let authenticator = Authenticator::builder(source.clone())
//!     .http_signature()
//!     .audience(Audience::targets_of("https://orders.shop.example")?)
//!     .callers(Authorizer::id("spiffe://shop.example/ns/web/sa/cart")?)
//!     .build()?;
//! let app = Router::new()
//!     .route("/orders", post(async |Extension(caller): Extension<Caller>| format!("hello {}\n", caller.id())))
//!     .layer(AuthenticationLayer::new(authenticator).sign_responses(source.clone()));
//! let connections = source.mtls_server_config(Authorizer::trust_domain("shop.example")?)?;
//! let listener = MtlsListener::bind("0.0.0.0:8443", connections).await?;
//! axum::serve(listener, app.into_make_service_with_connect_info::<PeerIdentity>()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Its client, whose key stays in the agent:
//!
//! ```no_run
//! # #[cfg(all(feature = "hyper", feature = "proof-client"))]
//! # async fn call() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! use bytes::Bytes;
//! use countersign_verify::{
//!     Authorizer, MtlsConnector, Source,
//!     layer::{MaybeBuffered, ProofAudience, ProofLayer},
//!     proof_socket::ProofSocket,
//! };
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{Layer as _, Service as _};
//!
//! let source = Source::from_env()?.ready_to_verify_wits().await?;
//! let orders = Authorizer::id("spiffe://shop.example/ns/web/sa/orders")?;
//! let connector = MtlsConnector::new(source.mtls_client_config(orders.clone())?);
//! let client: Client<_, MaybeBuffered<Full<Bytes>>> = Client::builder(TokioExecutor::new()).build(connector);
//! let mut client = ProofLayer::http_signature(ProofSocket::from_env()?, ProofAudience::Target)
//!     .expect_signed_responses(orders, source)
//!     .layer(client);
//! let request = http::Request::post("https://orders.shop.example/orders").body(Full::from("seven"))?;
//! let response = client.call(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Bodies are kept in memory only where a signature covers them, up to a limit. HTTP signatures are not for gRPC, whose bodies are
//! streams and whose result is in trailers: gRPC is authenticated by mTLS, JWT-SVIDs or Workload Proof Tokens.

mod authentication;
mod buffer;
mod error;
mod message;
mod outgoing;
mod proof;
mod refused;
#[cfg(feature = "reqwest")]
mod reqwest;
mod signed_response;
mod verified_response;

use bytes::Bytes;
use http_body_util::{Either, Full};

#[cfg(feature = "reqwest")]
pub use self::reqwest::SentRequest;
pub use authentication::{AuthenticationLayer, AuthenticationService};
pub use error::ProofLayerError;
pub use outgoing::ProofAudience;
pub use proof::{ProofLayer, ProofService};
pub use verified_response::ResponseSigner;

/// A body as it came, or the whole of it, kept in memory.
pub type MaybeBuffered<B> = Either<B, Full<Bytes>>;

/// The longest body that is kept in memory, unless a layer says otherwise, in bytes.
pub const DEFAULT_BODY_LIMIT: usize = 1024 * 1024;

/// The error of a body, and of a service whose own errors are joined by those of its layer.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Takes the service that was polled until it was ready, and leaves a clone, which was not.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let fresh = service.clone();
    std::mem::replace(service, fresh)
}
