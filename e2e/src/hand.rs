//! Pods shaped by hand: as the webhook would shape them, but not by it.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use kube::api::PostParams;

use crate::{World, apply::documents, fixture::PodSpec, pods::AGENT};

impl World {
    /// Makes a pod as the webhook would, but not by it, and with these variables in the agent's environment.
    ///
    /// # Errors
    /// The API server refuses, or the webhook does not inject.
    pub async fn shaped_by_hand(&self, spec: &PodSpec<'_>, environment: &[(&str, &str)]) -> Result<Pod> {
        let change = |agent: &mut Container| {
            let variables = agent.env.get_or_insert_default();
            for &(name, value) in environment {
                variables.retain(|variable| variable.name != name);
                variables.push(EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() });
            }
        };
        self.with_another_agent(spec, change).await
    }

    /// Makes a pod as the webhook would, but not by it, and with its agent changed.
    ///
    /// # Errors
    /// The API server refuses, or the webhook does not inject.
    pub async fn with_another_agent(&self, spec: &PodSpec<'_>, change: impl FnOnce(&mut Container)) -> Result<Pod> {
        let mut objects = documents(&spec.pod(&self.namespace))?;
        let pod: Pod = objects.pop().context("a pod is the last")?.try_parse()?;
        for object in &objects {
            self.cluster.apply_object(object).await?;
        }
        let mut made = self.pods().create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await?;
        made.metadata.managed_fields = None;
        made.metadata.resource_version = None;
        made.metadata.uid = None;
        made.metadata.labels.get_or_insert_default().insert("countersign.dev/inject".to_owned(), "false".to_owned());
        let containers =
            made.spec.as_mut().and_then(|spec| spec.init_containers.as_mut()).context("no agent was injected")?;
        let agent = containers.iter_mut().find(|container| container.name == AGENT).context("no agent was injected")?;
        change(agent);
        self.pods().create(&PostParams::default(), &made).await.context("make the pod")
    }
}
