//! Requests whose sender is authenticated by a proof of possession, a JWT-SVID, or the connection they came by.
//!
//! An [`Authenticator`] decides who sent a request. It knows nothing of tower, hyper or sockets: it is given a request as
//! [`wimse::Request`](countersign_core::wimse::Request), the peer of the connection, and the time.
//!
//! - A proof in the request names the caller; the mTLS peer that carried it is [`Caller::via`].
//! - A request whose proof is refused is refused: it is never attributed to the mTLS peer instead.
//! - A proof of a kind that is not accepted is refused, never ignored; so are two proofs, and a WIT without one.
//! - A proof is accepted once. What replicas do not share is accepted once at each: see [`SharedReplayCache`].
//!
//! Over a connection without TLS a JWT-SVID is readable by everybody on the way, and usable until it expires. The authenticator cannot
//! see the connection: accept JWT-SVIDs on connections with TLS alone.

mod authenticator;
mod builder;
mod bundles;
mod caller;
mod method;
mod presented;
#[cfg(feature = "redis")]
mod redis;
mod refusal;
mod replay;

#[cfg(feature = "redis")]
pub use self::redis::RedisReplayCache;
pub use authenticator::{AuthenticatedRequest, Authenticator, SignedRequest};
pub use builder::{AuthenticatorBuilder, AuthenticatorError};
pub use bundles::Bundles;
pub use caller::Caller;
pub use method::{Method, MethodError};
pub use refusal::{Refusal, RefusalReason};
pub use replay::{Remembering, ReplayCacheError, SharedReplayCache};
