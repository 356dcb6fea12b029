//! What is known of a pod that asks: who it is, from its signed token; its labels and containers, from the index.

use std::collections::BTreeMap;

/// Labels of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// A pod, as attested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Namespace, from the token.
    pub namespace: String,
    /// Name, from the token.
    pub name: String,
    /// Uid, from the token.
    pub uid: String,
    /// Service account, from the token.
    pub service_account: String,
    /// Labels, from the index.
    pub labels: Labels,
    /// Names of its containers, init containers included, from the index.
    pub containers: Vec<String>,
    /// Grows whenever somebody asks for its credentials to be renewed, from the index; 0: nobody has asked.
    pub renewal: u64,
}
