//! The agent beside the workload: it holds the key, keeps the identity fresh, and hands it out as files and over the SPIFFE
//! Workload API. It is made of sessions, each a token source, identities, a socket and a folder.

pub mod config;
pub mod files;
pub mod publish;
pub mod run;
pub mod session;
pub mod telemetry;
pub mod token;
pub mod uds_authority_rewrite;
pub mod upstream;
pub mod wait;
pub mod workload_api;
