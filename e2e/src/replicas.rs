//! The product's replicas: their number, the current leader, and whether all of them have settled.

use anyhow::{Context as _, Result, ensure};
use countersign_contract::objects::LEASE;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    World,
    cluster::SYSTEM,
    fixture::PodSpec,
    pods::{container_statuses, is_ready},
    wait::{DEFAULT_TIMEOUT, until},
};

pub use countersign_contract::objects::{OPERATOR, WEBHOOK, WEBHOOK_CA};

impl World {
    /// Waits until all replicas of operator, webhook and the webhook's CA are ready.
    ///
    /// # Errors
    /// They were not ready in time.
    pub async fn settled(&self) -> Result<()> {
        for name in [OPERATOR, WEBHOOK, WEBHOOK_CA] {
            // A killed container may be in restart back-off.
            until(&format!("{name} serves"), DEFAULT_TIMEOUT * 2, async || {
                let wanted = usize::try_from(self.replicas(name).await?)?;
                let pods = self.product(name).await?;
                Ok((pods.len() == wanted && pods.iter().all(is_ready)).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// The pods of a Deployment of the product that are not being deleted.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn product(&self, name: &str) -> Result<Vec<Pod>> {
        let named = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
        let mut pods = self.cluster.api::<Pod>(SYSTEM).list(&named).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// A metric of the operator, by its name and labels, summed over the replicas; 0 where it is absent.
    ///
    /// # Errors
    /// A replica cannot be reached.
    pub async fn operator_metric(&self, metric: &str) -> Result<u64> {
        let mut sum = 0;
        for pod in self.product(OPERATOR).await? {
            let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{}:8080/proxy/metrics", pod.name_any());
            let request = http::Request::get(path).body(Vec::new())?;
            let text = self.cluster.client.request_text(request).await?;
            let value = |line: &str| line.strip_prefix(metric)?.strip_prefix(' ')?.trim().parse::<u64>().ok();
            sum += text.lines().find_map(value).unwrap_or(0);
        }
        Ok(sum)
    }

    /// The number of replicas that a Deployment of the product requests.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn replicas(&self, name: &str) -> Result<i32> {
        Ok(self.cluster.api::<Deployment>(SYSTEM).get(name).await?.spec.replicas.unwrap_or(1))
    }

    /// Scales a Deployment of the product, and waits until exactly that many pods exist and all are ready.
    ///
    /// # Errors
    /// They were not ready in time.
    pub async fn scale(&self, name: &str, replicas: i32) -> Result<()> {
        let patch = json!({ "spec": { "replicas": replicas } });
        let deployments = self.cluster.api::<Deployment>(SYSTEM);
        deployments.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        until(&format!("{name} has {replicas} replicas"), DEFAULT_TIMEOUT, async || {
            let named = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
            let pods = self.cluster.api::<Pod>(SYSTEM).list(&named).await?.items;
            Ok((i32::try_from(pods.len())? == replicas && pods.iter().all(is_ready)).then_some(()))
        })
        .await
    }

    /// The addresses of the operator's replicas.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn operators(&self) -> Result<Vec<String>> {
        let pods = self.product(OPERATOR).await?;
        pods.iter().map(address).collect()
    }

    /// The leading pod, and the number of leader transitions.
    ///
    /// # Errors
    /// The API server does not answer, or the Lease has no spec.
    pub async fn leader(&self) -> Result<Option<(String, i32)>> {
        let Some(lease) = self.cluster.api::<Lease>(SYSTEM).get_opt(LEASE).await? else { return Ok(None) };
        let spec = lease.spec.context("a Lease without spec")?;
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        // Pod name and incarnation.
        let pod = holder.map(|holder| holder.split('_').next().unwrap_or_default().to_owned());
        Ok(pod.map(|pod| (pod, spec.lease_transitions.unwrap_or_default())))
    }

    /// Creates a pod with a new identity, and waits until it is served and the status of its WorkloadIdentity is written.
    ///
    /// # Errors
    /// It was not in time.
    pub async fn new_pod(&self, name: &str) -> Result<()> {
        self.cluster.apply(&self.identity_yaml(name, "")).await?;
        self.cluster.apply(&PodSpec::hold(name).pod(&self.namespace)).await?;
        self.ready(name).await?;
        let id = self.credential(name).await?.id;
        ensure!(id == self.id(name), "{name} has {id}");
        let identities = self.cluster.workload_identities(&self.namespace).await?;
        until(&format!("the status of {name} is written"), DEFAULT_TIMEOUT, async || {
            let object = identities.get(name).await?;
            let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array).cloned();
            let ready = |condition: &Value| {
                condition.get("type") == Some(&json!("Ready")) && condition.get("status") == Some(&json!("True"))
            };
            Ok(conditions.unwrap_or_default().iter().any(ready).then_some(()))
        })
        .await
    }
}

/// A pod's address.
///
/// # Errors
/// It has none yet.
pub fn address(pod: &Pod) -> Result<String> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    address.with_context(|| format!("{} has no address", pod.name_any()))
}

/// The id of a running container of the pod.
#[must_use]
pub fn running(pod: &Pod, container: &str) -> Option<String> {
    let status = container_statuses(pod).find(|status| status.name == container)?;
    status.state.as_ref()?.running.as_ref()?;
    status.container_id.clone()
}
