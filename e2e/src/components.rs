//! Operator, webhook and the controller of the webhook's CA: their log level and their roll-outs.

use anyhow::Result;
use countersign_contract::{
    environment::{LOG, component::AGENT_LOG},
    objects::{OPERATOR, WEBHOOK, WEBHOOK_CA},
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    Cluster,
    cluster::SYSTEM,
    wait::{DEFAULT_TIMEOUT, until, watch},
};

/// The Deployments of the product, their containers, and the variables of their log levels.
const COMPONENTS: [(&str, &str, &[&str]); 3] =
    [(OPERATOR, "operator", &[LOG]), (WEBHOOK, "webhook", &[LOG, AGENT_LOG]), (WEBHOOK_CA, "webhook-ca", &[LOG])];

impl Cluster {
    /// Sets the log level of operator, webhook, its CA and the agents of new pods; `None` restores the default. Running
    /// pods are replaced; [`Self::rolled_out`] waits for that.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn log_level(&self, level: Option<&str>) -> Result<()> {
        let deployments = self.api::<Deployment>(SYSTEM);
        for (name, container, variables) in COMPONENTS {
            let env: Vec<Value> = variables
                .iter()
                .map(|variable| match level {
                    Some(level) => json!({ "name": variable, "value": level }),
                    None => json!({ "name": variable, "$patch": "delete" }),
                })
                .collect();
            let container = json!({ "name": container, "env": env });
            let patch = json!({ "spec": { "template": { "spec": { "containers": [container] } } } });
            deployments.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        }
        Ok(())
    }

    /// Waits until only pods of the new revision are left.
    ///
    /// # Errors
    /// They were not rolled out in time.
    pub async fn rolled_out(&self) -> Result<()> {
        let deployments = self.api::<Deployment>(SYSTEM);
        for (name, ..) in COMPONENTS {
            watch(&deployments, name, "rolled out", is_rolled_out).await?;
        }
        // The old pods end while the new ones already serve.
        until("the old ones are gone", DEFAULT_TIMEOUT, async || {
            let pods = self.api::<Pod>(SYSTEM).list(&ListParams::default()).await?;
            Ok(pods.items.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()).then_some(()))
        })
        .await
    }
}

fn is_rolled_out(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.replicas.unwrap_or(1);
    status.observed_generation >= deployment.metadata.generation
        && [status.updated_replicas, status.available_replicas, status.replicas]
            .iter()
            .all(|count| count.unwrap_or(0) == wanted)
}
