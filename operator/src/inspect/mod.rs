//! What lives in streams, gathered: each replica reports its own over the Inspect API, the leader adds the reports up at
//! most every [`aggregate::EACH`], and status tells. Replicas know each other by certificates of the control plane.

pub mod aggregate;
pub mod client;
pub mod credential;
pub mod elsewhere;
pub mod identity_counts;
pub mod replicas;
pub mod report;
pub mod server;

/// The port of the Inspect API; no Service leads to it.
pub const INSPECT_PORT: u16 = 8444;

/// The longest report that is read, bytes: 100,000 identities fit.
pub const MAX_REPORT: usize = 32 * 1024 * 1024;

/// The name in every replica's certificate, by which replicas know each other.
#[must_use]
pub fn replica_name(namespace: &str) -> String {
    format!("countersign-operator.{namespace}.svc")
}
