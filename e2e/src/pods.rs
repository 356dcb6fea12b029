//! Pods: their state, their output, and programs run in them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::{
    ResourceExt as _,
    api::{AttachParams, ListParams, LogParams},
};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::{
    World,
    fixture::PodSpec,
    wait::{DEFAULT_TIMEOUT, until, watch},
};

/// The container of the application in every pod of [`crate::fixture`].
pub const APP: &str = "app";
pub use countersign_contract::pod::AGENT;

/// The result of a program run in a pod.
#[derive(Debug)]
pub struct Output {
    /// Whether its exit code is 0.
    pub success: bool,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl World {
    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// It was not ready in time.
    pub async fn ready(&self, pod: &str) -> Result<Pod> {
        watch(&self.pods(), pod, "ready", is_ready).await
    }

    /// Waits until a pod has succeeded.
    ///
    /// # Errors
    /// It failed, or did not end in time.
    pub async fn succeeded(&self, pod: &str) -> Result<Pod> {
        let ended = watch(&self.pods(), pod, "at its end", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await?;
        ensure!(phase(&ended) == "Succeeded", "{pod} failed:\n{}", self.logs(pod, APP).await.unwrap_or_default());
        Ok(ended)
    }

    /// Waits until `count` pods have this label `app` and are ready, and returns them, ordered by name.
    ///
    /// # Errors
    /// They were not ready in time.
    pub async fn ready_pods(&self, app: &str, count: usize) -> Result<Vec<Pod>> {
        until(&format!("{count} pods of {app} are ready"), DEFAULT_TIMEOUT, async || {
            let mut pods = self.pods().list(&ListParams::default().labels(&format!("app={app}"))).await?.items;
            pods.retain(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none());
            pods.sort_by_key(kube::ResourceExt::name_any);
            Ok((pods.len() == count).then_some(pods))
        })
        .await
    }

    /// Runs a program in the application's container.
    ///
    /// # Errors
    /// It could not be run.
    pub async fn exec(&self, pod: &str, command: &[&str]) -> Result<Output> {
        let parameters = AttachParams::default().container(APP).stdin(false).stdout(true).stderr(true);
        let mut process =
            self.pods().exec(pod, command.to_vec(), &parameters).await.with_context(|| format!("exec in {pod}"))?;
        let mut out = process.stdout().context("no standard output")?;
        let mut err = process.stderr().context("no standard error")?;
        let status = process.take_status().context("no status")?;
        let (mut stdout, mut stderr) = (Vec::new(), String::new());
        let (read, told, status) = tokio::join!(out.read_to_end(&mut stdout), err.read_to_string(&mut stderr), status);
        read.context("read standard output")?;
        told.context("read standard error")?;
        let success = status.is_some_and(|status| status.status.as_deref() == Some("Success"));
        Ok(Output { success, stdout, stderr })
    }

    /// Runs `countersign-demo` with these arguments in a pod, and returns its standard output.
    ///
    /// # Errors
    /// It could not be run, or failed.
    pub async fn demo(&self, pod: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = self.exec(pod, &[&["/countersign-demo"], arguments].concat()).await?;
        // Standard output may contain a key or a token, so only JSON lines are shown, which never do.
        ensure!(
            output.success,
            "countersign-demo {arguments:?} in {pod} failed: {:?} {}",
            lines(&String::from_utf8_lossy(&output.stdout)),
            output.stderr
        );
        Ok(output.stdout)
    }

    /// The log of a container.
    ///
    /// # Errors
    /// The API server or the kubelet refuses.
    pub async fn logs(&self, pod: &str, container: &str) -> Result<String> {
        let what = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        self.pods().logs(pod, &what).await.with_context(|| format!("logs of {pod}/{container}"))
    }

    /// Counts occurrences of `words` in the log of a pod's agent.
    ///
    /// # Errors
    /// The API server or the kubelet refuses.
    pub async fn count_in_agent_log(&self, pod: &str, words: &str) -> Result<usize> {
        Ok(self.logs(pod, AGENT).await?.matches(words).count())
    }

    /// Creates a pod that is scheduled but never runs: it is not injected, and its first container's image does not exist.
    /// Only the test opens its sessions. Returns its name and uid.
    ///
    /// # Errors
    /// The API server refuses, or the pod was not scheduled in time.
    pub async fn never_runs(&self, name: &str, account: &str) -> Result<(String, String)> {
        let never = "initContainers:
- name: never
  image: countersign.local/never:none
  imagePullPolicy: Never
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}";
        self.not_injected(name, account, never).await?;
        let on_a_node = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        identity_of(&watch(&self.pods(), name, "on a node", on_a_node).await?)
    }

    /// Creates a pod that is never scheduled. Returns its name and uid.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn never_scheduled(&self, name: &str, account: &str) -> Result<(String, String)> {
        self.not_injected(name, account, "nodeSelector: {countersign.dev/no-such-node: 'true'}").await
    }

    /// Creates a pod that is not injected, with these additional fields of its spec. Returns its name and uid.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn not_injected(&self, name: &str, account: &str, more: &str) -> Result<(String, String)> {
        let spec = PodSpec { labels: "countersign.dev/inject: 'false'", more, ..PodSpec::hold(name).account(account) };
        let applied = self.cluster.apply(&spec.pod(&self.namespace)).await?;
        identity_of(&applied.last().context("a pod is the last")?.clone().try_parse()?)
    }

    /// The JSON lines printed by the application.
    ///
    /// # Errors
    /// The API server or the kubelet refuses.
    pub async fn app_output(&self, pod: &str) -> Result<Vec<Value>> {
        Ok(lines(&self.logs(pod, APP).await?))
    }

    /// Waits until the application prints a JSON line that satisfies `wanted`.
    ///
    /// # Errors
    /// It did not in time.
    pub async fn wait_for_output(
        &self,
        pod: &str,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        until(&format!("{pod} says {what}"), deadline, async || {
            Ok(self.app_output(pod).await?.into_iter().rev().find(|line| wanted(line)))
        })
        .await
    }

    /// Waits for an event about an object that satisfies `wanted`.
    ///
    /// # Errors
    /// There was none in time.
    pub async fn event(&self, about: &str, what: &str, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
        until(&format!("an event about {about} says {what}"), DEFAULT_TIMEOUT, async || {
            let events = self.cluster.api::<Event>(&self.namespace).list(&ListParams::default()).await?;
            Ok(events
                .items
                .into_iter()
                .find(|event| event.involved_object.name.as_deref() == Some(about) && wanted(event)))
        })
        .await
    }
}

/// The JSON objects among the lines of a text.
#[must_use]
pub fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

/// Whether a line has this `event`.
#[must_use]
pub fn is_event(line: &Value, event: &str) -> bool {
    line["event"] == event
}

/// Whether a pod is ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A pod's phase.
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The statuses of all containers of a pod, including the agent.
pub fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    })
}

/// The number of restarts of a pod's containers.
#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    container_statuses(pod).map(|status| status.restart_count).sum()
}

/// Name and uid of a pod.
///
/// # Errors
/// It has no uid, so it does not come from an API server.
pub fn identity_of(pod: &Pod) -> Result<(String, String)> {
    Ok((pod.name_any(), pod.uid().context("a pod without uid")?))
}
