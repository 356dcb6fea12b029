//! The agent beside the workload: it holds the key, renews the identity, and provides it as files and over the SPIFFE
//! Workload API. It consists of independent sessions, each with a token source, identities, a socket and a folder.

pub mod config;
pub mod files;
pub mod probe;
pub mod proof_api;
pub mod publish;
pub mod run;
pub mod session;
mod supervisor;
pub mod telemetry;
pub mod token;
pub mod uds_authority_rewrite;
pub mod upstream;
pub mod wait;
pub mod workload_api;
