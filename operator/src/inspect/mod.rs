//! What lives in streams, gathered: each replica reports its own over the Inspect API, the leader adds the reports up at
//! most every [`aggregate::EACH`], and status tells. Replicas know each other by certificates of the control plane.

pub mod aggregate;
pub mod client;
pub mod credential;
pub mod deliveries;
pub mod elsewhere;
pub mod identity_counts;
pub mod receipts;
pub mod replicas;
pub mod report;
pub mod server;

/// The longest report that is read, bytes: 100,000 identities fit.
pub const MAX_REPORT: usize = 32 * 1024 * 1024;
