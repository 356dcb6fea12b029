//! Two clusters poll each other's bundle endpoints.

use anyhow::{Result, ensure};
use countersign_contract::environment::test::PEER;
use countersign_e2e::{
    World,
    federation::{RemoteYaml, federated},
};

use crate::consents::{authorities, call};

/// Installs the endpoint on both clusters.
async fn install(here: &World, there: &World) -> Result<()> {
    for (world, variable) in [(here, "KUBECONFIG"), (there, PEER)] {
        world.install_endpoint(&std::env::var(variable)?).await?;
    }
    Ok(())
}

/// R6, R16: one side polls by `https_web`, without a bundle to begin with; the other by `https_spiffe`, introduced by a bundle.
#[tokio::test]
async fn two_clusters_poll_each_other_by_either_profile() {
    federated("poll", async |here, there| {
        install(here, there).await?;
        authorities(here, there, &["client", "server"]).await?;
        for world in [here, there] {
            world.endpoint_serves().await?;
        }
        let web = RemoteYaml {
            endpoint: there.web_endpoint().await?,
            namespaces: vec![&here.namespace],
            ..RemoteYaml::default()
        };
        here.cluster.apply(&here.remote_yaml(there, &web)).await?;
        let (endpoint, bundle) = (here.spiffe_endpoint().await?, here.bundle_document().await?);
        let spiffe = RemoteYaml { endpoint, bundle, namespaces: vec![&there.namespace], ..RemoteYaml::default() };
        there.cluster.apply(&there.remote_yaml(here, &spiffe)).await?;
        for (world, other) in [(here, there), (there, here)] {
            let ready = countersign_e2e::wait::until(
                "the bundle was polled",
                countersign_e2e::wait::DEFAULT_TIMEOUT,
                async || {
                    let (reason, _) = world.domain_condition(&other.trust_domain, "Ready", "True").await?;
                    Ok((reason == "Polled").then_some(()))
                },
            );
            ready.await?;
        }
        call(here, there).await?;
        let sums = here.traffic_continues(20).await?;
        ensure!(sums.failed == 0, "{sums:?}");
        Ok(())
    })
    .await;
}
