//! Which replicas there are: the pods of the operator's Deployment that run.

use std::net::{IpAddr, SocketAddr};

use countersign_contract::{metadata::label, objects::OPERATOR};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};

/// The operator's container.
const CONTAINER: &str = "operator";

/// Another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its pod's name.
    pub name: String,
    /// Where it is asked.
    pub address: SocketAddr,
    /// Whether it is on its way out: it need not answer any more.
    pub leaving: bool,
}

/// The other replicas of `namespace`.
///
/// # Errors
/// When the API server does not list them.
pub async fn others(client: &Client, namespace: &str, own: &str, port: u16) -> Result<Vec<Replica>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = pods.list(&ListParams::default().labels(&format!("{}={OPERATOR}", label::NAME))).await?;
    Ok(pods.items.iter().filter(|pod| pod.name_any() != own).filter_map(|pod| replica(pod, port)).collect())
}

/// A pod whose operator runs, as the kubelet last said; of a node that is cut off it may say so for minutes.
fn replica(pod: &Pod, port: u16) -> Option<Replica> {
    let status = pod.status.as_ref()?;
    let address: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
    let container = status.container_statuses.iter().flatten().find(|status| status.name == CONTAINER)?;
    container.state.as_ref()?.running.as_ref()?;
    Some(Replica {
        name: pod.name_any(),
        address: SocketAddr::new(address, port),
        leaving: pod.metadata.deletion_timestamp.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Replica, replica};
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn pod(ip: Option<&str>, state: &Value, deleted: Option<&str>) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "operator-a", "deletionTimestamp": deleted},
            "status": {"podIP": ip, "containerStatuses": [{
                "name": "operator", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn who_runs_and_has_an_address_is_asked() {
        let (runs, waits) = (json!({"running": {}}), json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        let found = |address: &str, leaving| {
            Some(Replica { name: "operator-a".to_owned(), address: address.parse().unwrap(), leaving })
        };
        for (pod, replica_is) in [
            (pod(Some("10.1.2.3"), &runs, None), found("10.1.2.3:8444", false)),
            (pod(Some("fd00::7"), &runs, None), found("[fd00::7]:8444", false)),
            (pod(Some("10.1.2.3"), &runs, Some("2026-01-01T00:00:00Z")), found("10.1.2.3:8444", true)),
            (pod(None, &runs, None), None),
            (pod(Some("10.1.2.3"), &waits, None), None),
        ] {
            assert_eq!(replica(&pod, 8444), replica_is);
        }
    }
}
