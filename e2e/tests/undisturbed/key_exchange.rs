//! TLS connections to the installed product use post-quantum key exchange.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{Cluster, cluster::SYSTEM, issuer::IssuerEndpoint, scenario};
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Service};
use kube::Api;
use rustls::{
    ClientConfig, NamedGroup, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

fn group(stream: &TlsStream<TcpStream>) -> Option<NamedGroup> {
    stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name())
}

#[tokio::test]
async fn the_issuer_agrees_on_post_quantum_keys() {
    scenario("key-exchange", async |world| {
        let agreed = group(&IssuerEndpoint::of(&world.cluster).await?.dial().await?);
        ensure!(agreed == Some(NamedGroup::X25519MLKEM768), "{agreed:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_webhook_agrees_on_post_quantum_keys_and_on_others_with_who_has_none() {
    scenario("key-exchange-webhook", async |world| {
        let only = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
        for (provider, expected) in
            [(aws_lc_rs::default_provider(), NamedGroup::X25519MLKEM768), (only, NamedGroup::X25519)]
        {
            let agreed = group(&dial_webhook(&world.cluster, provider).await?);
            ensure!(agreed == Some(expected), "{agreed:?} instead of {expected:?}");
        }
        Ok(())
    })
    .await;
}

/// Connects as the API server does: with the bundle and the Service of the configuration.
async fn dial_webhook(cluster: &Cluster, provider: CryptoProvider) -> Result<TlsStream<TcpStream>> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let webhooks = configurations.get("countersign").await?.webhooks.unwrap_or_default();
    let client = webhooks.into_iter().next().context("no webhook in the configuration")?.client_config;
    let name = client.service.context("the webhook has no Service")?.name;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&client.ca_bundle.context("no bundle yet")?.0) {
        roots.add(root?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let spec = cluster.api::<Service>(SYSTEM).get(&name).await?.spec.context("a Service without a spec")?;
    let stream = TcpStream::connect((spec.cluster_ip.context("no address")?, 443)).await?;
    let server = ServerName::try_from(format!("{name}.{SYSTEM}.svc"))?;
    Ok(TlsConnector::from(Arc::new(config)).connect(server, stream).await?)
}
