//! The desired result of an injection: the agent's container, its volumes, and the mount of each application container.

use countersign_contract::{
    files,
    pod::{IDENTITY_VOLUME, NO_API_TOKEN_VOLUME, PRIVATE_VOLUME, TOKEN_LIFE, TOKEN_VOLUME},
};
use serde_json::{Value, json};

use super::{
    agent::{self, Session},
    decide::{ContainerRef, InjectionRequest},
    options::AgentOptions,
    run_as::RunAs,
};
use crate::control_plane::Settings;

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
        volumes.extend(sessions.iter().map(|session| memory(&session.volume, agent::IDENTITY_VOLUME_MIB)));
        volumes.push(memory(PRIVATE_VOLUME, agent::PRIVATE_VOLUME_MIB));
        volumes.push(json!({ "name": NO_API_TOKEN_VOLUME, "emptyDir": { "sizeLimit": "1Mi" } }));
        let agent = agent::container(pod, &sessions, request, run_as, options, settings);
        Self { agent, volumes, per_container: request.per_container }
    }

    /// The mount of the identity in `container`.
    pub(super) fn mount(&self, container: &ContainerRef) -> Value {
        let name = if self.per_container {
            format!("{IDENTITY_VOLUME}-{}", container.name)
        } else {
            IDENTITY_VOLUME.to_owned()
        };
        json!({ "name": name, "mountPath": files::IDENTITY, "readOnly": true })
    }
}

fn sessions(request: &InjectionRequest) -> Vec<Session> {
    if !request.per_container {
        return vec![Session {
            name: String::new(),
            volume: IDENTITY_VOLUME.to_owned(),
            directory: files::IDENTITY.to_owned(),
        }];
    }
    let session = |container: &ContainerRef| Session {
        name: container.name.clone(),
        volume: format!("{IDENTITY_VOLUME}-{}", container.name),
        directory: format!("{}/{}", files::SESSIONS, container.name),
    };
    request.containers.iter().map(session).collect()
}

fn memory(name: &str, mib: u32) -> Value {
    json!({ "name": name, "emptyDir": { "medium": "Memory", "sizeLimit": format!("{mib}Mi") } })
}

fn token(settings: &Settings) -> Value {
    json!({ "name": TOKEN_VOLUME, "projected": {
        // The kubelet tightens this to the agent's user, or to the pod's group, if either is set.
        "defaultMode": 0o444,
        // The kubelet renews it at 80 % of its life.
        "sources": [{ "serviceAccountToken": {
            "audience": settings.audience, "expirationSeconds": TOKEN_LIFE.as_secs(), "path": files::TOKEN,
        } }],
    } })
}
