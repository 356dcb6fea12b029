//! What the end-to-end tests share: a client of the cluster in `KUBECONFIG`, a namespace and a trust domain for each test,
//! and ways to wait for conditions, to run programs in pods and to read what they print.
//!
//! Nothing here knows what kind of cluster it is, or how it was made. The images of `workloads/` are loaded into it beforehand.

pub mod apply;
pub mod audit;
pub mod cluster;
pub mod components;
pub mod credential;
pub mod faults;
pub mod fixture;
mod handmade_pods;
pub mod issuer;
pub mod log_capture;
pub mod pods;
pub mod replicas;
pub mod scenario;
pub mod secret_patterns;
pub mod secrets;
pub mod tokens;
pub mod traffic;
pub mod wait;

pub use cluster::Cluster;
pub use scenario::{World, scenario};
