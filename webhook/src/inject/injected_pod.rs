//! The desired result of an injection: the agent's container, its volumes, and the mount of each application container.

use serde_json::{Value, json};

use super::{
    agent::{self, Session},
    decide::{ContainerRef, InjectionRequest},
    names::{IDENTITY, IDENTITY_PATH, NO_API_TOKEN, PRIVATE, TOKEN},
    options::AgentOptions,
    run_as::RunAs,
};
use crate::control_plane::Settings;

/// Lifetime of a projected token, in seconds; the kubelet renews it at 80 %.
const TOKEN_SECONDS: u32 = 3600;

/// Everything that is injected into one pod.
#[derive(Debug)]
pub(super) struct InjectedPod {
    pub(super) agent: Value,
    pub(super) volumes: Vec<Value>,
    per_container: bool,
}

impl InjectedPod {
    pub(super) fn new(
        pod: &Value,
        request: &InjectionRequest,
        run_as: RunAs,
        options: &AgentOptions,
        settings: &Settings,
    ) -> Self {
        let sessions = sessions(request);
        let mut volumes = vec![token(settings)];
        volumes.extend(sessions.iter().map(|session| memory(&session.volume)));
        volumes.push(memory(PRIVATE));
        volumes.push(json!({ "name": NO_API_TOKEN, "emptyDir": { "sizeLimit": "1Mi" } }));
        let agent = agent::container(pod, &sessions, request.hold, run_as, options, settings);
        Self { agent, volumes, per_container: request.per_container }
    }

    /// The mount of the identity in `container`.
    pub(super) fn mount(&self, container: &ContainerRef) -> Value {
        let name = if self.per_container { format!("{IDENTITY}-{}", container.name) } else { IDENTITY.to_owned() };
        json!({ "name": name, "mountPath": IDENTITY_PATH, "readOnly": true })
    }
}

fn sessions(request: &InjectionRequest) -> Vec<Session> {
    if !request.per_container {
        return vec![Session { name: String::new(), volume: IDENTITY.to_owned(), directory: IDENTITY_PATH.to_owned() }];
    }
    let session = |container: &ContainerRef| Session {
        name: container.name.clone(),
        volume: format!("{IDENTITY}-{}", container.name),
        directory: format!("/sessions/{}", container.name),
    };
    request.containers.iter().map(session).collect()
}

fn memory(name: &str) -> Value {
    json!({ "name": name, "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } })
}

fn token(settings: &Settings) -> Value {
    json!({ "name": TOKEN, "projected": {
        // The kubelet tightens this to the agent's user, or to the pod's group, if either is set.
        "defaultMode": 0o444,
        "sources": [{ "serviceAccountToken": {
            "audience": settings.audience, "expirationSeconds": TOKEN_SECONDS, "path": "token",
        } }],
    } })
}
