//! What a trust domain publishes in its cluster for whoever has no agent: its bundle document, and its anchors.

use anyhow::{Context as _, Result, ensure};
use countersign_contract::objects::cluster_trust_bundle::{SIGNER, object_name};
use countersign_e2e::{
    scenario,
    wait::{DEFAULT_TIMEOUT, gone, until},
};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use kube::{Api, api::DeleteParams};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;

/// R34: the document introduces the trust domain elsewhere, the ClusterTrustBundle serves pods without an agent. Both hold the
/// anchors that workloads trust, and both go with the TrustDomain.
#[tokio::test]
async fn a_trust_domain_publishes_its_bundle_document_and_its_anchors() {
    scenario("published", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        let document: Value = serde_json::from_str(&world.bundle_document().await?)?;
        let keys = document.get("keys").and_then(Value::as_array).context("no keys")?;
        let of_use =
            |wanted: &str| keys.iter().filter(|key| key.get("use").and_then(Value::as_str) == Some(wanted)).count();
        ensure!((of_use("x509-svid"), of_use("jwt-svid")) == (2, 2), "one signs, one is its spare: {document}");

        let bundles: Api<ClusterTrustBundle> = Api::all(world.cluster.client.clone());
        let name = object_name(&world.trust_domain);
        let published =
            until("the ClusterTrustBundle is there", DEFAULT_TIMEOUT, async || Ok(bundles.get_opt(&name).await?));
        let spec = published.await?.spec;
        ensure!(spec.signer_name.as_deref() == Some(SIGNER), "{spec:?}");
        let anchors = CertificateDer::pem_slice_iter(spec.trust_bundle.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        ensure!(anchors.len() == of_use("x509-svid"), "{}", spec.trust_bundle);

        world.cluster.trust_domains().await?.delete(&world.trust_domain, &DeleteParams::default()).await?;
        gone(&bundles, &name, DEFAULT_TIMEOUT).await
    })
    .await;
}
