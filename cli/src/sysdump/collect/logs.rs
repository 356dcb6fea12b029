//! Logs of the product's pods and of agents, the newest lines of each.

use countersign_contract::pod::AGENT;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, LogParams},
};

use super::{Args, Collected, Entry};
use crate::{
    cluster::Cluster,
    reading::{Reading, Right},
};

/// The most of one log.
const BYTES: i64 = 4 * 1024 * 1024;

pub(super) async fn collect(
    cluster: &Cluster,
    args: &Args,
    namespaces: &[String],
    workloads: &[DynamicObject],
    collected: &mut Collected,
) {
    for namespace in namespaces {
        let pods: Reading<Vec<Pod>> = cluster.read_all_in(namespace).await;
        collected.note(&format!("pods of {namespace}"), pods.gap());
        for pod in pods.items() {
            for status in statuses(pod) {
                if !logs(cluster, args, namespace, &pod.name_any(), &status, collected).await {
                    return;
                }
            }
        }
    }
    let elsewhere = workloads.iter().filter(|pod| !namespaces.contains(&pod.namespace().unwrap_or_default()));
    for pod in elsewhere.take(args.agents) {
        let namespace = pod.namespace().unwrap_or_default();
        let Ok(typed) = serde_json::from_value::<Pod>(serde_json::to_value(pod).unwrap_or_default()) else { continue };
        // The application's log is not ours to read.
        for status in statuses(&typed).into_iter().filter(|status| status.name == AGENT) {
            if !logs(cluster, args, &namespace, &pod.name_any(), &status, collected).await {
                return;
            }
        }
    }
}

fn statuses(pod: &Pod) -> Vec<ContainerStatus> {
    let status = pod.status.iter();
    let of = |status: &k8s_openapi::api::core::v1::PodStatus| {
        let init = status.init_container_statuses.clone().unwrap_or_default();
        init.into_iter().chain(status.container_statuses.clone().unwrap_or_default())
    };
    status.flat_map(of).collect()
}

/// Which of its runs have a log: this one, unless it waits to start, and the one before.
fn runs(status: &ContainerStatus) -> Vec<bool> {
    let waits = status.state.as_ref().is_none_or(|state| state.running.is_none() && state.terminated.is_none());
    let this = (!waits).then_some(false);
    let before = (status.restart_count > 0).then_some(true);
    this.into_iter().chain(before).collect()
}

/// The log of a container and of its run before. False: the caller may not read logs, and other attempts would end the same way.
async fn logs(
    cluster: &Cluster,
    args: &Args,
    namespace: &str,
    pod: &str,
    status: &ContainerStatus,
    collected: &mut Collected,
) -> bool {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    for previous in runs(status) {
        let parameters = LogParams {
            container: Some(status.name.clone()),
            previous,
            tail_lines: Some(args.log_lines),
            limit_bytes: Some(BYTES),
            timestamps: true,
            ..LogParams::default()
        };
        let suffix = if previous { ".previous" } else { "" };
        let path = format!("logs/{namespace}_{pod}_{}{suffix}.log", status.name);
        let right = || Right::new("get", "pods/log", Some(namespace));
        match Reading::from(api.logs(pod, &parameters).await, right) {
            Reading::Found(text) => collected.entries.push(Entry { path, text }),
            other => {
                collected.note(&path, other.gap());
                if matches!(other, Reading::Forbidden(_)) {
                    return false;
                }
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::runs;

    #[test]
    fn a_container_that_waits_has_a_log_of_its_last_run_alone() {
        let of = |restarts: u32, state: &str| {
            let status = json!({
                "name": "a", "ready": false, "restartCount": restarts, "image": "", "imageID": "",
                "state": { state: { "exitCode": 0 } },
            });
            runs(&serde_json::from_value(status).unwrap())
        };
        assert_eq!(of(0, "running"), [false]);
        assert_eq!(of(0, "waiting"), [] as [bool; 0]);
        assert_eq!(of(2, "waiting"), [true]);
        assert_eq!(of(1, "terminated"), [false, true]);
    }
}
