//! The webhook: puts the means into pods, and refuses resources which one object alone proves wrong. It does not know who
//! is entitled to what: of `core::entitlement` it has the parsers of patterns and templates alone. It calls nobody while a
//! request waits.
//!
//! Beside it, in a process and with an account of its own, runs the controller of the webhook's CA ([`publish`]): it may write
//! `caBundle`, and has no port.

pub mod admission;
mod body;
pub mod ca;
pub mod control_plane;
pub mod head;
pub mod health;
pub mod inject;
pub mod large_reviews;
pub mod metrics;
mod projection;
pub mod publish;
pub mod server;
pub mod serving;
pub mod tls;
pub mod validate;

pub use projection::Unreadable;
