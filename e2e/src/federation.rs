//! Two clusters whose control planes know nothing of each other, each with a trust domain, and what introduces them.

#![allow(clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]
#![allow(clippy::indexing_slicing, reason = "a JSON value that is missing is null")]

use std::panic::AssertUnwindSafe;

use anyhow::{Context as _, Result};
use countersign_contract::{
    environment::test::KEEP,
    objects::{FEDERATION_NAMESPACE, own_bundle},
};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, api::ListParams};
use serde_json::Value;

use crate::{
    Cluster, World,
    apply::delete,
    wait::{DEFAULT_TIMEOUT, until},
};

/// Runs a test between two clusters, with a namespace and a trust domain in each, which are deleted afterwards, and with them what
/// each cluster was told of the other.
///
/// # Panics
/// The test failed.
pub async fn federated(name: &str, test: impl AsyncFnOnce(&World, &World) -> Result<()>) {
    let here = World::new(name).await.expect("a world on the first cluster");
    let peer = Cluster::connect_to_peer().await.expect("a second cluster");
    let there = World::on(peer, name);
    for world in [&here, &there] {
        world.create_namespace().await.expect("a namespace for the test");
    }
    let outcome = AssertUnwindSafe(test(&here, &there)).catch_unwind().await;
    let failed = !matches!(outcome, Ok(Ok(())));
    for (world, other) in [(&here, &there), (&there, &here)] {
        if failed {
            world.print_state().await;
        }
        if !(failed && std::env::var_os(KEEP).is_some()) {
            world.end().await.expect("what the test made is taken away");
            let domains = world.cluster.trust_domains().await.expect("TrustDomains");
            delete(&domains, &other.trust_domain).await.expect("the remote TrustDomain is taken away");
        }
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What one cluster is told of the other's trust domain.
#[derive(Clone, Debug, Default)]
pub struct RemoteYaml<'a> {
    /// The content of the field `endpoint`, as a YAML flow mapping; none if empty.
    pub endpoint: String,
    /// The bundle document to begin with; none if empty.
    pub bundle: String,
    /// The namespaces that may trust it.
    pub namespaces: Vec<&'a str>,
    /// Further fields of `spec.remote`, as the content of a YAML flow mapping.
    pub more: &'a str,
}

impl World {
    /// The bundle document of the test's trust domain, as this cluster publishes it for people.
    ///
    /// # Errors
    /// It was not published in time.
    pub async fn bundle_document(&self) -> Result<String> {
        let maps = self.cluster.api::<ConfigMap>(FEDERATION_NAMESPACE);
        let name = own_bundle::config_map(&self.trust_domain);
        until(&format!("ConfigMap {name} is there"), DEFAULT_TIMEOUT, async || {
            let map = maps.get_opt(&name).await?;
            Ok(map.and_then(|map| map.data?.get(own_bundle::KEY).cloned()))
        })
        .await
    }

    /// The remote TrustDomain by which this cluster knows the trust domain of `other`.
    #[must_use]
    pub fn remote_yaml(&self, other: &World, remote: &RemoteYaml<'_>) -> String {
        let RemoteYaml { endpoint, bundle, namespaces, more } = remote;
        let mut fields = vec![format!("namespaces: {{matchNames: {}}}", serde_json::json!(namespaces))];
        if !endpoint.is_empty() {
            fields.push(format!("endpoint: {{{endpoint}}}"));
        }
        if !bundle.is_empty() {
            fields.push(format!("bootstrap: {{bundle: {}}}", serde_json::json!(bundle)));
        }
        fields.extend((!more.is_empty()).then(|| (*more).to_owned()));
        format!(
            "---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {{name: {}}}
spec:
  remote: {{{}}}
",
            other.trust_domain,
            fields.join(", ")
        )
    }

    /// Waits until a condition of the TrustDomain of this name has this status, and this reason unless it is empty. Returns reason
    /// and message.
    ///
    /// # Errors
    /// It had not in time.
    pub async fn domain_condition(
        &self,
        domain: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<(String, String)> {
        let what = format!("condition {type_} of TrustDomain {domain} is {status} {reason}");
        until(&what, DEFAULT_TIMEOUT, async || {
            let object = self.cluster.trust_domains().await?.get(domain).await?;
            Ok(current(&object.data, object.metadata.generation, [type_, status, reason]))
        })
        .await
    }

    /// As [`Self::domain_condition`], of a WorkloadIdentity.
    ///
    /// # Errors
    /// It had not in time.
    pub async fn identity_condition(
        &self,
        identity: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<(String, String)> {
        let what = format!("condition {type_} of WorkloadIdentity {identity} is {status} {reason}");
        until(&what, DEFAULT_TIMEOUT, async || {
            let object = self.cluster.workload_identities(&self.namespace).await?.get(identity).await?;
            Ok(current(&object.data, object.metadata.generation, [type_, status, reason]))
        })
        .await
    }

    /// The address of the cluster's node, at which its NodePorts are.
    ///
    /// # Errors
    /// There is no node.
    pub async fn node_address(&self) -> Result<String> {
        let nodes = Api::<Node>::all(self.cluster.client.clone()).list(&ListParams::default()).await?;
        let node = nodes.items.into_iter().next().context("the cluster has no node")?;
        let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
        let internal = addresses.into_iter().find(|address| address.type_ == "InternalIP");
        Ok(internal.context("the node has no address")?.address)
    }
}

fn current(data: &Value, generation: Option<i64>, wanted: [&str; 3]) -> Option<(String, String)> {
    let [type_, status, reason] = wanted;
    let all = data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|one| {
        let is_wanted =
            one["type"] == type_ && one["status"] == status && (reason.is_empty() || one["reason"] == reason);
        is_wanted && one["observedGeneration"].as_i64() == generation
    });
    let text = |one: &Value, member: &str| one[member].as_str().unwrap_or_default().to_owned();
    found.map(|one| (text(&one, "reason"), text(&one, "message")))
}
