//! Two clusters poll each other's bundle endpoints.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use countersign_contract::environment::test::PEER;
use countersign_e2e::{
    World,
    credential::{FOLDER, TRUST_BUNDLE_SUFFIX},
    endpoint::SPIFFE_PORT,
    faults::Faults,
    federation::{RemoteYaml, federated},
    fixture::PodSpec,
    kubectl::columns,
    replicas::{OPERATOR, address},
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;

use crate::consents::{authorities, call};

/// How one cluster polls the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Without a bundle to begin with.
    Web,
    /// Introduced by a bundle.
    Spiffe,
}

/// Installs the endpoint on both clusters.
pub(crate) async fn install(here: &World, there: &World) -> Result<()> {
    for (world, variable) in [(here, "KUBECONFIG"), (there, PEER)] {
        world.install_endpoint(&std::env::var(variable)?).await?;
    }
    Ok(())
}

/// Installs the endpoint on both clusters, makes both trust domains with identities for these accounts, and lets `here` poll
/// `there` by the first profile, and `there` poll `here` by the second. Returns once both have polled.
pub(crate) async fn polling(here: &World, there: &World, accounts: &[&str], profiles: [Profile; 2]) -> Result<()> {
    install(here, there).await?;
    authorities(here, there, accounts).await?;
    for world in [here, there] {
        world.endpoint_serves().await?;
    }
    for ((world, other), profile) in [(here, there), (there, here)].into_iter().zip(profiles) {
        let (endpoint, bundle) = match profile {
            Profile::Web => (other.web_endpoint().await?, String::new()),
            Profile::Spiffe => (other.spiffe_endpoint().await?, other.bundle_document().await?),
        };
        let remote = RemoteYaml { endpoint, bundle, namespaces: vec![&world.namespace], ..RemoteYaml::default() };
        world.cluster.apply(&world.remote_yaml(other, &remote)).await?;
    }
    for (world, other) in [(here, there), (there, here)] {
        world.domain_condition(&other.trust_domain, "Ready", "True", "Polled").await?;
    }
    Ok(())
}

/// When `world` confirmed the bundle of `other` last.
async fn confirmed(world: &World, other: &World) -> Result<Timestamp> {
    let object = world.cluster.trust_domains().await?.get(&other.trust_domain).await?;
    let at = object.data["status"]["remote"]["confirmedAt"].as_str().context("no confirmedAt")?;
    Ok(at.parse()?)
}

/// Waits until `world` has confirmed the bundle of `other` after `then`.
async fn confirmed_after(world: &World, other: &World, then: Timestamp) -> Result<()> {
    until("the bundle is confirmed again", DEFAULT_TIMEOUT, async || {
        Ok((confirmed(world, other).await? > then).then_some(()))
    })
    .await
}

/// What `kubectl get trustdomain` prints, by column.
fn shown(domain: &str) -> Result<BTreeMap<String, String>> {
    Ok(columns("default", "trustdomain", domain)?.into_iter().collect())
}

/// R6, R16, R34: one side polls by `https_web`, without a bundle to begin with; the other by `https_spiffe`, introduced by a bundle.
/// A rotation on the side that is called is learnt by poll, and no call fails.
#[tokio::test]
async fn two_clusters_poll_each_other_by_either_profile() {
    federated("poll", async |here, there| {
        polling(here, there, &["client", "server"], [Profile::Web, Profile::Spiffe]).await?;
        call(here, there).await?;
        let sums = here.traffic_continues(20).await?;
        ensure!(sums.failed == 0, "{sums:?}");
        let columns = shown(&there.trust_domain)?;
        ensure!(columns["READY"] == "True" && columns["REASON"] == "Polled", "{columns:?}");
        ensure!(!columns["CONFIRMED"].is_empty() && !columns["NEXT POLL"].is_empty(), "{columns:?}");
        let sequence: u64 = columns["SEQUENCE"].parse()?;

        let rotation = format!("bundleRefreshHint: 1s, rotation: {{after: '{}'}}", Timestamp::now());
        let grant = format!("federatesWith: [{}]", here.trust_domain);
        there.cluster.apply(&there.granting_yaml(&rotation, &grant)).await?;
        until("the new bundle is polled", DEFAULT_TIMEOUT, async || {
            let columns = shown(&there.trust_domain)?;
            Ok((columns["SEQUENCE"].parse::<u64>()? > sequence).then_some(()))
        })
        .await?;
        here.traffic_since(sums, 20, DEFAULT_TIMEOUT).await.map(drop)
    })
    .await;
}

/// R25, R26, R50: a control plane that is gone costs the other side nothing: it goes on polling the endpoint, whose pods have all
/// that they serve. A network that is cut in one direction, then in the other, ends no call and no start of a pod.
#[tokio::test]
async fn a_stopped_control_plane_and_a_cut_network_end_no_trust() {
    let name = "a_stopped_control_plane_and_a_cut_network_end_no_trust";
    let (Some(faults_here), Some(faults_there)) = (Faults::from_env(name), Faults::of_peer(name)) else { return };
    federated("gone", async |here, there| {
        polling(here, there, &["client", "server", "late"], [Profile::Spiffe, Profile::Spiffe]).await?;
        call(here, there).await?;

        // In one direction, then in the other: what was polled last is trusted on, by whoever cannot poll any more.
        let sums = here.traffic_continues(20).await?;
        for (world, other, faults) in [(here, there, &faults_here), (there, here, &faults_there)] {
            let to = format!("{}:{SPIFFE_PORT}", other.node_address().await?);
            let mut cut = vec!["block".to_owned(), "--to".to_owned(), to];
            for pod in world.product(OPERATOR).await? {
                let address: Ipv4Addr = address(&pod)?.parse()?;
                cut.extend(["--pod".to_owned(), address.to_string()]);
            }
            let fault = faults.begin(&cut.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            let (_, message) = world.domain_condition(&other.trust_domain, "PollFailing", "True", "").await?;
            ensure!(message.contains("no connection to the endpoint"), "{message}");
            world.domain_condition(&other.trust_domain, "Ready", "True", "Polled").await?;
            fault.end().await?;
        }
        here.traffic_since(sums, 20, DEFAULT_TIMEOUT).await?;

        let (replicas, then) = (there.replicas(OPERATOR).await?, Timestamp::now());
        there.scale(OPERATOR, 0).await?;
        let gone = async {
            confirmed_after(here, there, then).await?;
            here.cluster.apply(&PodSpec::hold("late").pod(&here.namespace)).await?;
            here.ready("late").await?;
            let file = format!("{FOLDER}/{}{TRUST_BUNDLE_SUFFIX}", there.trust_domain);
            here.file("late", &file).await.map(drop)
        };
        let outcome = gone.await;
        there.scale(OPERATOR, replicas).await?;
        outcome?;
        here.traffic_continues(20).await?;
        Ok(())
    })
    .await;
}
