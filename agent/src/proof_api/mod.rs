//! Proofs for workloads that link no library: HTTP with JSON on a Unix socket beside the Workload API. A workload describes a message
//! and gets the fields to send, or hands in the description of what it received and gets the verified sender. Keys never leave the
//! agent: a compromised application can ask while it runs, and carries nothing away.
//!
//! Every process that has the directory mounted may ask, as for the Workload API. Containers are distinguished only where each has a
//! session of its own.

mod listener;
mod prove;
mod refusal;
mod service;
mod verify;

pub use listener::serve;
pub use service::ProofApi;
