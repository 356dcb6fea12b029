//! The ephemeral container of a probe: the agent's image, user and restrictions, with the pod's credentials mounted.

use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_contract::{files::IDENTITY, pod::AGENT, pod::IDENTITY_VOLUME};
use k8s_openapi::api::core::v1::{Container as PodContainer, Pod};
use serde_json::{Value, json};

/// One to add.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Container {
    pub(super) name: String,
    spec: Value,
}

impl Container {
    /// # Errors
    /// The pod has no agent.
    pub(super) fn of(pod: &Pod, name: &str, role: [&str; 2], timeout: Duration) -> Result<Self> {
        let agent = agent(pod).context("the pod has no agent: kubectl countersign why says why")?;
        let mounts = agent.volume_mounts.iter().flatten();
        let volume = mounts.map(|mount| mount.name.as_str()).find(|name| name.starts_with(IDENTITY_VOLUME));
        let volume = volume.context("the agent has no volume with an identity")?;
        let [flag, address] = role;
        let spec = json!({
            "name": name,
            "image": agent.image,
            "imagePullPolicy": agent.image_pull_policy,
            "args": ["probe", "--timeout", format!("{}s", timeout.as_secs()), flag, address],
            // The credentials are readable for the agent's user.
            "securityContext": agent.security_context,
            "volumeMounts": [{ "name": volume, "mountPath": IDENTITY, "readOnly": true }],
        });
        Ok(Self { name: name.to_owned(), spec })
    }

    /// A strategic merge patch of the subresource `ephemeralcontainers`, which keeps those of others.
    pub(super) fn patch(&self) -> Value {
        json!({ "spec": { "ephemeralContainers": [self.spec] } })
    }
}

pub(super) fn agent(pod: &Pod) -> Option<&PodContainer> {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    containers.into_iter().find(|container| container.name == AGENT)
}
