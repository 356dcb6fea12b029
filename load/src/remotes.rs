//! Remote trust domains: their bundles, their TrustDomains, and the identities that federate with them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_core::{
    bundle::Bundle,
    id::TrustDomain as TrustDomainName,
    jwt::JwtVerificationKey,
    key::{KeyType, PrivateKey},
    x509::X509Authority,
};
use countersign_crds::WorkloadIdentity;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    bundle_endpoint::BundleEndpoint,
    cluster::Cluster,
    dataset::{self, Dataset, PEERS, POLLED},
    install::apply,
};

/// Longer than any run.
const CA_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The shortest interval of polls.
const REFRESH_HINT: Duration = Duration::from_secs(30);

/// A bundle document of a trust domain, newer than any before: one new X.509 authority and one new JWT key.
pub(crate) fn document(trust_domain: &str) -> Result<Vec<u8>> {
    let (trust_domain, now): (TrustDomainName, _) = (trust_domain.parse()?, Timestamp::now());
    let authority = X509Authority::generate(&trust_domain, KeyType::EcP256, CA_LIFE, now)?;
    let sequence = u64::try_from(now.as_millisecond())?;
    let key = PrivateKey::generate(KeyType::EcP256)?;
    let bundle = Bundle {
        x509_authorities: vec![authority.certificate().clone()],
        jwt_authorities: vec![JwtVerificationKey::new(&format!("key-{sequence}"), key.public_key())?],
        wit_authorities: Vec::new(),
        sequence,
        refresh_hint: REFRESH_HINT,
        trust_domain,
    };
    Ok(bundle.to_json())
}

/// Applies the TrustDomains of [`PEERS`] trust domains, each with its bundle in the spec; returns the length of all documents.
pub(crate) async fn apply_peers(cluster: &Cluster) -> Result<usize> {
    let mut length = 0;
    for peer in (0..PEERS).map(dataset::peer) {
        let bundle = String::from_utf8(document(&peer)?)?;
        length += bundle.len();
        apply(cluster, dataset::remote_object(&peer, &json!({"bootstrap": {"bundle": bundle}}))).await?;
    }
    Ok(length)
}

/// Applies the TrustDomain of [`POLLED`].
pub(crate) async fn apply_polled(cluster: &Cluster, endpoint: &BundleEndpoint) -> Result<()> {
    let endpoint = json!({"url": endpoint.url, "profile": "https_web", "caBundle": endpoint.ca_bundle});
    apply(cluster, dataset::remote_object(POLLED, &json!({"endpoint": endpoint}))).await
}

/// Makes the identities of `dataset` federate with these trust domains and no others.
pub(crate) async fn federate(cluster: &Cluster, dataset: Dataset, with: &[String], parallel: usize) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"federatesWith": with}}));
    let patching = stream::iter(0..dataset.identities).map(|number| {
        let identities: Api<WorkloadIdentity> = Api::namespaced(cluster.client.clone(), &dataset::namespace_of(number));
        let (name, patch) = (dataset::account(number), &patch);
        async move {
            let patched = identities.patch_metadata(&name, &PatchParams::default(), patch).await;
            patched.map(drop).with_context(|| format!("patching the WorkloadIdentity {name}"))
        }
    });
    patching.buffer_unordered(parallel).try_collect().await
}
