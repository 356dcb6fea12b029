//! The webhook: puts the means into pods, and refuses resources which one object alone proves wrong. It does not know who
//! is entitled to what: of `core::entitlement` it has the parsers of patterns and templates alone. It calls nobody while a
//! request waits.

pub mod admission;
pub mod ca;
pub mod control_plane;
pub mod inject;
pub mod metrics;
pub mod publish;
pub mod server;
pub mod tls;
pub mod validate;
