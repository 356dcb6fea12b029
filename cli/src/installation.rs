//! The components of an installation as they run: Deployments, their pods, and the leader's Lease.

use std::collections::{BTreeMap, BTreeSet};

use countersign_contract::{
    objects::{LEASE, SYSTEM_NAMESPACE},
    pod::AGENT,
};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{cluster::Cluster, reading::Reading};

/// Where the installation is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Installation {
    /// The namespace of the operator and the webhook.
    #[arg(long, value_name = "NAMESPACE", default_value = SYSTEM_NAMESPACE)]
    pub(crate) system_namespace: String,
}

/// A Deployment and its pods, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replicas {
    pub(crate) wanted: i32,
    pub(crate) ready: i32,
    /// The images of its template.
    pub(crate) images: BTreeSet<String>,
    /// The images of its pods that run, of the same container.
    pub(crate) running: BTreeSet<String>,
    /// Why a pod is not ready, by pod.
    pub(crate) not_ready: BTreeMap<String, String>,
}

/// The holder of the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Leader {
    /// `None`: released, and nobody has taken it.
    pub(crate) holder: Option<String>,
    pub(crate) renewed: Option<Timestamp>,
    /// In seconds.
    pub(crate) duration: i64,
}

impl Cluster {
    /// A Deployment with the pods of its label `app.kubernetes.io/name`.
    pub(crate) async fn replicas(&self, namespace: &str, name: &str) -> Reading<Replicas> {
        let deployment: Reading<Deployment> = self.read_in(namespace, name).await;
        let selector = format!("app.kubernetes.io/name={name}");
        let pods: Reading<Vec<Pod>> = self.read_labelled(namespace, &selector).await;
        deployment.map(|deployment| replicas(&deployment, pods.items()))
    }

    pub(crate) async fn leader(&self, namespace: &str) -> Reading<Leader> {
        self.read_in::<Lease>(namespace, LEASE).await.map(|lease| leader(&lease))
    }
}

fn replicas(deployment: &Deployment, pods: &[Pod]) -> Replicas {
    let spec = &deployment.spec;
    let containers = spec.template.spec.iter().flat_map(|spec| &spec.containers);
    let alive = || pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let running = alive().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
    let not_ready = alive().filter_map(|pod| Some((pod.name_any(), why_not_ready(pod)?)));
    let image = |container: &k8s_openapi::api::core::v1::Container| container.image.clone();
    Replicas {
        wanted: spec.replicas.unwrap_or(1),
        ready: deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0),
        images: containers.filter_map(image).collect(),
        running: running.filter_map(image).collect(),
        not_ready: not_ready.collect(),
    }
}

/// What a pod waits for; `None`: it is ready.
pub(crate) fn why_not_ready(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    if conditions.clone().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return None;
    }
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for container in containers {
        let state = container.state.as_ref();
        if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
            let reason = waiting.reason.as_deref().unwrap_or("waiting");
            if reason != "PodInitializing" {
                let message = waiting.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
                return Some(format!("container {} is in {reason}{message}", container.name));
            }
        }
        if let Some(ended) = state.and_then(|state| state.terminated.as_ref()).filter(|ended| ended.exit_code != 0) {
            return Some(format!("container {} ended with exit code {}", container.name, ended.exit_code));
        }
    }
    let unmet = conditions.filter(|condition| condition.status != "True");
    let message = unmet.filter_map(|condition| condition.message.clone()).find(|message| !message.is_empty());
    Some(message.unwrap_or_else(|| format!("it is {}", status.phase.as_deref().unwrap_or("Pending"))))
}

/// Whether a pod's agent has published every identity that it waits for.
pub(crate) fn agent_is_ready(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    statuses.into_iter().any(|status| status.name == AGENT && status.started == Some(true))
}

fn leader(lease: &Lease) -> Leader {
    let spec = lease.spec.as_ref();
    Leader {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty()),
        renewed: spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0),
        duration: spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(15).into(),
    }
}

impl Leader {
    /// The pod that leads: an id is unique to a process, `<pod>_<random>`.
    pub(crate) fn pod(&self) -> Option<&str> {
        self.holder.as_deref().map(|holder| holder.rsplit_once('_').map_or(holder, |(pod, _)| pod))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
    use serde_json::json;

    use super::{replicas, why_not_ready};

    fn pod(status: serde_json::Value) -> Pod {
        let pod = json!({
            "metadata": { "name": "a" },
            "spec": { "containers": [{ "name": "app", "image": "operator:1" }] },
            "status": status,
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_that_is_not_ready_says_what_it_waits_for() {
        let ready = pod(json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
        assert_eq!(why_not_ready(&ready), None);
        let pulls = pod(json!({ "containerStatuses": [{
            "name": "app", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": { "waiting": { "reason": "ErrImagePull", "message": "not found" } },
        }] }));
        assert_eq!(why_not_ready(&pulls).unwrap(), "container app is in ErrImagePull: not found");
        let unschedulable = pod(json!({
            "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "False", "message": "0/1 nodes are available" }],
        }));
        assert_eq!(why_not_ready(&unschedulable).unwrap(), "0/1 nodes are available");
    }

    #[test]
    fn pods_that_are_being_deleted_do_not_count() {
        let deployment: Deployment = serde_json::from_value(json!({
            "spec": {
                "replicas": 2, "selector": {},
                "template": { "spec": { "containers": [{ "name": "app", "image": "operator:2" }] } },
            },
            "status": { "readyReplicas": 1 },
        }))
        .unwrap();
        let mut ending = pod(json!({}));
        ending.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        let found = replicas(&deployment, &[ending]);
        assert_eq!((found.wanted, found.ready, found.running.len()), (2, 1, 0));
        assert!(found.images.contains("operator:2") && found.not_ready.is_empty());
    }
}
