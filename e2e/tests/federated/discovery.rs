//! A cluster finds the bundle of another one from nothing but the trust domain's name (WIMSE Trust Domain Discovery).

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    apply::delete,
    endpoint::{WEB_NAMESPACE, WEB_PORT},
    federation::federated,
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::polled::install;

/// Makes the web endpoint of `there` reachable in `here` at port 443 of a DNS name, and returns the name.
async fn named(here: &World, there: &World, service: &str) -> Result<String> {
    let address = there.node_address().await?;
    let yaml = format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {service}, namespace: {WEB_NAMESPACE}}}
spec: {{ports: [{{port: 443}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}, namespace: {WEB_NAMESPACE}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{port: {WEB_PORT}, protocol: TCP}}]
endpoints: [{{addresses: ['{address}']}}]
"
    );
    here.cluster.apply(&yaml).await?;
    Ok(format!("{service}.{WEB_NAMESPACE}.svc.cluster.local"))
}

/// A TrustDomain object of the test for a trust domain of another name. The object is called as the test's trust domain of `there`.
fn trust_domain(there: &World, name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {{name: {object}}}
spec: {{trustDomain: {name}, {spec}}}
",
        object = there.trust_domain
    )
}

/// What `world` reports of the trust domain of `there`.
async fn status(world: &World, there: &World) -> Result<Value> {
    let object = world.cluster.trust_domains().await?.get(&there.trust_domain).await?;
    Ok(object.data["status"].clone())
}

async fn found_by_name(here: &World, there: &World, service: &str) -> Result<()> {
    let name = named(here, there, service).await?;
    let discovery = json!({ "profile": "wimse_discovery", "caBundle": there.web_authority().await? });
    let remote = format!("remote: {{namespaces: {{matchNames: [{}]}}, endpoint: {discovery}}}", here.namespace);
    here.cluster.apply(&trust_domain(there, &name, &remote)).await?;
    // Nothing of that name is published yet, and the host serves no metadata of anything else.
    let failed = until("the discovery fails", DEFAULT_TIMEOUT, async || {
        let failed = status(here, there).await?["remote"]["lastError"]["reason"].clone();
        Ok(failed.as_str().map(str::to_owned))
    });
    let failed = failed.await?;
    ensure!(["Status", "UntrustedCertificate", "Connect", "Tls", "Timeout"].contains(&failed.as_str()), "{failed}");

    there.cluster.apply(&trust_domain(there, &name, "authority: {}")).await?;
    there.endpoint_serves().await?;
    here.domain_condition(&there.trust_domain, "Ready", "True", "Polled").await?;
    let (known, own) = (status(here, there).await?, status(there, there).await?);
    ensure!(known["bundle"]["sequence"] == own["bundle"]["sequence"], "{known}, published {own}");
    let authorities = [&known["remote"]["x509Authorities"], &known["remote"]["jwtAuthorities"]];
    ensure!(authorities == [2, 2], "one signs, one is its spare: {known}");
    ensure!(known["remote"]["lastError"].is_null(), "{known}");
    Ok(())
}

/// R34: who knows the name of a trust domain, and whom its host's certificate is from, finds its bundle.
#[tokio::test]
async fn a_trust_domain_is_discovered_from_its_name() {
    federated("discovery", async |here, there| {
        install(here, there).await?;
        let service = &here.namespace;
        let outcome = found_by_name(here, there, service).await;
        let services = here.cluster.api::<Service>(WEB_NAMESPACE);
        delete(&services, service).await.context("delete the Service")?;
        outcome
    })
    .await;
}
