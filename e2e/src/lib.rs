//! Shared helpers of the end-to-end tests: a client of the cluster in `KUBECONFIG`, a namespace and a trust domain for each
//! test, waiting for conditions, and running programs in pods.
//!
//! This crate does not depend on the kind of cluster or on how it was created. The images of `workloads/` must have been
//! loaded into it.

pub mod apply;
pub mod audit;
pub mod authorities;
pub mod cli;
pub mod cluster;
pub mod components;
pub mod credential;
pub mod endpoint;
pub mod faults;
pub mod federation;
pub mod fixture;
mod handmade_pods;
pub mod hostile_endpoint;
pub mod issuer;
pub mod kubeconfig;
pub mod kubectl;
pub mod log_capture;
pub mod pods;
pub mod proofs;
pub mod replicas;
pub mod scenario;
pub mod secret_patterns;
pub mod secrets;
pub mod stolen_credential;
pub mod tokens;
pub mod traffic;
pub mod usage;
pub mod verify;
pub mod wait;

pub use cluster::Cluster;
pub use scenario::{World, scenario};
