//! Pods with an injected agent that were not injected by the webhook, as a user could write them by hand.

use anyhow::{Context as _, Result};
use countersign_contract::metadata::label;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use kube::api::PostParams;

use crate::{World, apply::documents, fixture::PodSpec, pods::AGENT};

impl World {
    /// Creates a pod that looks injected but bypassed the webhook, with these variables in the agent's environment.
    ///
    /// # Errors
    /// The API server refuses, or the webhook does not inject.
    pub async fn handmade_pod(&self, spec: &PodSpec<'_>, environment: &[(&str, &str)]) -> Result<Pod> {
        let change = |agent: &mut Container| {
            let variables = agent.env.get_or_insert_default();
            for &(name, value) in environment {
                variables.retain(|variable| variable.name != name);
                variables.push(EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() });
            }
        };
        self.handmade_pod_with_agent(spec, change).await
    }

    /// Creates a pod that looks injected but bypassed the webhook, with a changed agent.
    ///
    /// # Errors
    /// The API server refuses, or the webhook does not inject.
    pub async fn handmade_pod_with_agent(
        &self,
        spec: &PodSpec<'_>,
        change: impl FnOnce(&mut Container),
    ) -> Result<Pod> {
        let mut objects = documents(&spec.pod(&self.namespace))?;
        let pod: Pod = objects.pop().context("a pod is the last")?.try_parse()?;
        for object in &objects {
            self.cluster.apply_object(object).await?;
        }
        let mut made = self.pods().create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await?;
        made.metadata.managed_fields = None;
        made.metadata.resource_version = None;
        made.metadata.uid = None;
        made.metadata.labels.get_or_insert_default().insert(label::INJECT.to_owned(), "false".to_owned());
        let containers =
            made.spec.as_mut().and_then(|spec| spec.init_containers.as_mut()).context("no agent was injected")?;
        let agent = containers.iter_mut().find(|container| container.name == AGENT).context("no agent was injected")?;
        change(agent);
        self.pods().create(&PostParams::default(), &made).await.context("create the pod")
    }
}
