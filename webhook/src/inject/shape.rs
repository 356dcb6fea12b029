//! What is injected: the agent's container, its volumes, and what each container of the application gets. The names are
//! those of `ARCHITECTURE.md`.

use serde_json::{Value, json};

use super::{
    agent,
    decide::{Container, Wanted},
    mesh::Mesh,
    resources::AgentResources,
    user::User,
};
use crate::control_plane::Settings;

/// The agent's container.
pub(super) const AGENT: &str = "countersign-agent";
/// The volume of the projected token.
pub(super) const TOKEN: &str = "countersign-token";
/// The volume of the pod's session.
pub(super) const IDENTITY: &str = "countersign-identity";
/// The agent's own volume.
pub(super) const PRIVATE: &str = "countersign-private";
/// The volume that hides the API token.
pub(super) const NO_API_TOKEN: &str = "countersign-no-api-token";
/// Where an application finds its identity.
pub(super) const IDENTITY_PATH: &str = "/run/countersign";
/// The longest name of a container with its own session: a volume's name has at most 63 characters.
pub(super) const LONGEST_SESSION_NAME: usize = 63 - IDENTITY.len() - 1;

/// How long a projected token lives, in seconds; the kubelet renews it at 80 %.
const TOKEN_SECONDS: u32 = 3600;

/// The agent as the installation wants it.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The image.
    pub image: String,
    /// When the image is pulled.
    pub pull_policy: PullPolicy,
    /// What it asks of its node.
    pub resources: AgentResources,
    /// What it logs, as a tracing filter; its own default where there is none.
    pub log: Option<String>,
    /// The meshes that pods may be in without showing it, because their namespaces are.
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

/// One session of the agent.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The container's name, or "" for the pod's.
    pub(super) name: String,
    pub(super) volume: String,
    /// Where the agent has it mounted.
    pub(super) directory: String,
}

/// Everything that is injected into one pod.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) agent: Value,
    pub(super) volumes: Vec<Value>,
    per_container: bool,
}

impl Shape {
    pub(super) fn new(pod: &Value, wanted: &Wanted, user: User, options: &AgentOptions, settings: &Settings) -> Self {
        let sessions = sessions(wanted);
        let mut volumes = vec![token(settings)];
        volumes.extend(sessions.iter().map(|session| memory(&session.volume)));
        volumes.push(memory(PRIVATE));
        volumes.push(json!({ "name": NO_API_TOKEN, "emptyDir": { "sizeLimit": "1Mi" } }));
        let agent = agent::container(pod, &sessions, wanted.hold, user, options, settings);
        Self { agent, volumes, per_container: wanted.per_container }
    }

    /// What `container` has mounted.
    pub(super) fn mount(&self, container: &Container) -> Value {
        let name = if self.per_container { format!("{IDENTITY}-{}", container.name) } else { IDENTITY.to_owned() };
        json!({ "name": name, "mountPath": IDENTITY_PATH, "readOnly": true })
    }
}

/// What an application's environment gets, unless it has a variable of that name: names and values.
pub(super) const APPLICATION_ENV: [(&str, &str); 2] = [
    ("SPIFFE_ENDPOINT_SOCKET", "unix:///run/countersign/workload.sock"),
    ("SPIFFE_CREDENTIAL_FOLDER", "/run/countersign/credentials"),
];

fn sessions(wanted: &Wanted) -> Vec<Session> {
    if !wanted.per_container {
        return vec![Session { name: String::new(), volume: IDENTITY.to_owned(), directory: IDENTITY_PATH.to_owned() }];
    }
    let session = |container: &Container| Session {
        name: container.name.clone(),
        volume: format!("{IDENTITY}-{}", container.name),
        directory: format!("/sessions/{}", container.name),
    };
    wanted.containers.iter().map(session).collect()
}

fn memory(name: &str) -> Value {
    json!({ "name": name, "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } })
}

fn token(settings: &Settings) -> Value {
    json!({ "name": TOKEN, "projected": {
        // The kubelet tightens this to the agent's user or the pod's group where there is one of these.
        "defaultMode": 0o444,
        "sources": [{ "serviceAccountToken": {
            "audience": settings.audience, "expirationSeconds": TOKEN_SECONDS, "path": "token",
        } }],
    } })
}
