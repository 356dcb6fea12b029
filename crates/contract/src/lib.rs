//! Names and limits that components must agree on, each in one place. They are part of the interface that `docs/reference.md`
//! describes; manifests spell them too. The crate has no dependencies, and nothing in it decides anything.
//!
//! Names that one component alone uses, and the fields of the API (`countersign-crds`), are not here.

pub mod environment;
pub mod files;
pub mod metadata;
pub mod network;
pub mod objects;
pub mod pod;

/// The group of the API.
pub const API_GROUP: &str = "countersign.dev";
/// The version of the API.
pub const API_VERSION: &str = "v1alpha1";

/// The audience of agents' tokens, which no other installation has; `cluster` is the uid of the namespace kube-system.
#[must_use]
pub fn token_audience(cluster: &str) -> String {
    format!("{API_GROUP}/{cluster}")
}
