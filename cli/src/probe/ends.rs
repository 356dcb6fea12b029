//! One side of a probe: its pod, and what its container printed.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{LogParams, Patch, PatchParams},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::container::{Container, agent};
use crate::{
    access::not_written,
    cluster::Cluster,
    installation::agent_is_ready,
    reading::{Reading, Right, full_name},
};

/// How often a pod is read.
const POLL: Duration = Duration::from_millis(300);

/// How long a kubelet may take to start a container, and to say that it has ended.
const KUBELET: Duration = Duration::from_secs(30);

/// A pod that takes part.
pub(super) struct End {
    api: Api<Pod>,
    name: String,
    /// What kubectl needs to find its cluster: ` --context CONTEXT`, or nothing.
    options: String,
    pub(super) pod: Pod,
    pub(super) ip: IpAddr,
}

/// What a side found, as the agent's `probe` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ended {
    /// The id of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) own: Option<String>,
    /// That of its peer, once it is authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<String>,
    pub(super) outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its image is being pulled, or it is being created.
    Waits(String),
    Runs,
    Ended,
}

impl Phase {
    pub(super) fn is_running(&self) -> bool {
        *self == Self::Runs
    }
}

impl End {
    /// # Errors
    /// There is no such pod, or it cannot take part.
    pub(super) async fn find(cluster: &Cluster, named: &str, context: Option<&str>) -> Result<Self> {
        let (namespace, pod) = named.split_once('/').unwrap_or((&cluster.namespace, named));
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let found = Reading::from(api.get(pod).await, || Right::of::<Pod>("get", Some(namespace)));
        let pod = match found {
            Reading::Found(pod) => pod,
            Reading::Absent => bail!("there is no pod {pod} in namespace {namespace}"),
            other => bail!("pod {namespace}/{pod}: {}", other.gap().map(|gap| gap.to_string()).unwrap_or_default()),
        };
        let name = full_name(&pod);
        let options = context.map(|context| format!(" --context {context}")).unwrap_or_default();
        if agent(&pod).is_none() {
            bail!(
                "pod {name} has no agent, and so no identity: kubectl countersign why -n {namespace} {}{options} says why",
                pod.name_any()
            );
        }
        if !agent_is_ready(&pod) {
            bail!(
                "pod {name} has no identity yet: kubectl countersign why -n {namespace} {}{options} says what it waits for",
                pod.name_any()
            );
        }
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).and_then(|ip| ip.parse().ok());
        let ip = ip.with_context(|| format!("pod {name} has no address yet: it does not run"))?;
        Ok(Self { api, name, options, pod, ip })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn options(&self) -> &str {
        &self.options
    }

    /// Adds the container, and waits until it runs or has ended.
    ///
    /// # Errors
    /// It may not be added, or the kubelet does not start it.
    pub(super) async fn start(&self, container: &Container, timeout: Duration) -> Result<Phase> {
        let pod = self.pod.name_any();
        let patch = Patch::Strategic(container.patch());
        let added = self.api.patch_ephemeral_containers(&pod, &PatchParams::default(), &patch).await;
        let namespace = self.pod.namespace().unwrap_or_default();
        added.context("the container of the probe was not added").map_err(|error| {
            not_written(error, "patch", &format!("pods/ephemeralcontainers in namespace {namespace}"))
        })?;
        let deadline = Instant::now() + timeout + KUBELET;
        loop {
            let phase = self.phase(&container.name).await?;
            match phase {
                Phase::Waits(why) if Instant::now() >= deadline => {
                    bail!("the container of the probe does not start: {why}")
                }
                Phase::Waits(_) => sleep(POLL).await,
                phase => return Ok(phase),
            }
        }
    }

    /// Waits until the container has ended, and reads what it printed.
    ///
    /// # Errors
    /// It does not end, or its log cannot be read.
    pub(super) async fn ended(&self, container: &str, timeout: Duration) -> Result<Ended> {
        let deadline = Instant::now() + timeout + KUBELET;
        while self.phase(container).await? != Phase::Ended {
            if Instant::now() >= deadline {
                bail!("{}: container {container} does not end", self.name);
            }
            sleep(POLL).await;
        }
        let parameters = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        let log = self.api.logs(&self.pod.name_any(), &parameters).await;
        let right = || Right::new("get", "pods/log", self.pod.namespace().as_deref());
        match Reading::from(log, right) {
            Reading::Found(log) => Ok(Ended::of_log(&log)),
            other => bail!(
                "{}: the log of the probe is {}",
                self.name,
                other.gap().map(|gap| gap.to_string()).unwrap_or_default()
            ),
        }
    }

    async fn phase(&self, container: &str) -> Result<Phase> {
        let pod = self.api.get(&self.pod.name_any()).await.with_context(|| format!("reading pod {}", self.name))?;
        let statuses = pod.status.iter().flat_map(|status| status.ephemeral_container_statuses.iter().flatten());
        let state =
            statuses.into_iter().find(|status| status.name == container).and_then(|status| status.state.as_ref());
        Ok(phase(state))
    }
}

fn phase(state: Option<&ContainerState>) -> Phase {
    let Some(state) = state else { return Phase::Waits("the kubelet has not looked at it".to_owned()) };
    if state.terminated.is_some() {
        return Phase::Ended;
    }
    if state.running.is_some() {
        return Phase::Runs;
    }
    let waiting = state.waiting.as_ref();
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or("waiting");
    let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
    Phase::Waits(format!("{reason} {message}").trim_end().to_owned())
}

impl Ended {
    pub(super) fn not_run(message: String) -> Self {
        Self { outcome: "notRun".to_owned(), message: Some(message), ..Self::default() }
    }

    /// The line of JSON. Without one the agent is too old to know the command, and says so on its first line.
    fn of_log(log: &str) -> Self {
        let report = log.lines().rev().find_map(|line| serde_json::from_str::<Self>(line).ok());
        report.unwrap_or_else(|| {
            let first = log.lines().find(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
            Self::not_run(format!("the pod's agent cannot make a probe; it may be too old: {}", first.trim()))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Ended, Phase, phase};

    #[test]
    fn the_report_is_found_among_lines_of_the_log() {
        let log = "a warning\n{\"role\":\"dial\",\"own\":\"spiffe://a/b\",\"peer\":\"spiffe://a/c\",\"outcome\":\"authenticated\"}\n";
        let ended = Ended::of_log(log);
        assert_eq!((ended.outcome.as_str(), ended.peer.as_deref()), ("authenticated", Some("spiffe://a/c")));
    }

    #[test]
    fn an_agent_that_does_not_know_the_command_is_said_to_be_old() {
        let ended = Ended::of_log("error: \"probe\" is no command: run and wait are\n\nHolds the key");
        assert_eq!(ended.outcome, "notRun");
        assert!(ended.message.unwrap().ends_with("\"probe\" is no command: run and wait are"));
    }

    #[test]
    fn a_container_that_cannot_start_says_why() {
        let state =
            serde_json::from_value(json!({ "waiting": { "reason": "ErrImagePull", "message": "no" } })).unwrap();
        assert_eq!(phase(Some(&state)), Phase::Waits("ErrImagePull no".to_owned()));
        let state = serde_json::from_value(json!({ "terminated": { "exitCode": 0 } })).unwrap();
        assert_eq!(phase(Some(&state)), Phase::Ended);
    }
}
