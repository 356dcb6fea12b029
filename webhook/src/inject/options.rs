//! The installation's settings for the agent container.

use super::{mesh::Mesh, resources::AgentResources};

/// The installation's settings for the agent container.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The image.
    pub image: String,
    /// When the image is pulled.
    pub pull_policy: PullPolicy,
    /// CPU and memory of the container.
    pub resources: AgentResources,
    /// Its log filter, as a tracing filter; `None`: the agent's default.
    pub log: Option<String>,
    /// Meshes that may add a sidecar to a pod because of its namespace, without a mark on the pod itself.
    pub meshes: Vec<Mesh>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node has none of that name.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}
