//! The admission webhook: it injects the agent into pods, and refuses resources that are invalid on their own, as
//! `countersign-policy` reads them. It does not decide entitlement: what it knows of other objects
//! ([`consequences`]) it only warns by. It makes no calls while it answers a request.
//!
//! The controller of the webhook's CA ([`publish`]) is a separate process with its own service account: it may write
//! `caBundle`, and has no port.

pub mod admission;
mod body;
pub mod ca;
pub mod consequences;
pub mod control_plane;
pub mod head;
pub mod health;
pub mod https;
pub mod inject;
pub mod large_reviews;
pub mod metrics;
mod projection;
pub mod publish;
pub mod server;
pub mod serving;
pub mod validate;

pub use projection::Unreadable;
