//! Two clusters are introduced by bundles in their TrustDomains alone: no endpoint, and no network between control planes.

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    credential::{FOLDER, TRUST_BUNDLE_SUFFIX},
    federation::{RemoteYaml, federated},
    fixture::{AUDIENCE, PodSpec},
    pods::is_event,
    replicas::address,
    wait::{DEFAULT_TIMEOUT, until},
};

/// Leaves live for an hour: whatever changes within a test was pushed.
const AUTHORITY: &str = "bundleRefreshHint: 1s";

/// Each cluster has a trust domain that grants federation with the other's, and an identity for each account that names it.
pub(crate) async fn authorities(here: &World, there: &World, accounts: &[&str]) -> Result<()> {
    for (world, other) in [(here, there), (there, here)] {
        let grant = format!("federatesWith: [{}]", other.trust_domain);
        world.cluster.apply(&world.granting_yaml(AUTHORITY, &grant)).await?;
        for account in accounts {
            let more = format!("federatesWith: [{}]\njwt: {{audiences: [{AUDIENCE}]}}", other.trust_domain);
            world.cluster.apply(&world.identity_yaml(account, &more)).await?;
        }
    }
    Ok(())
}

/// Each cluster is told the other's bundle, for these namespaces of the test.
async fn introduce(here: &World, there: &World, more: &str) -> Result<()> {
    for (world, other) in [(here, there), (there, here)] {
        let bundle = other.bundle_document().await?;
        let remote = RemoteYaml { bundle, namespaces: vec![&world.namespace], more, ..RemoteYaml::default() };
        world.cluster.apply(&world.remote_yaml(other, &remote)).await?;
    }
    Ok(())
}

/// A server in `there`, and a client in `here` that calls it ten times a second, each time with a token.
pub(crate) async fn call(here: &World, there: &World) -> Result<()> {
    let serve = ["serve", "--listen", "0.0.0.0:8443", "--allow", &here.id("client"), "--audience", AUDIENCE];
    there.cluster.apply(&PodSpec::demo("server", &serve).pod(&there.namespace)).await?;
    let target = format!("{}:8443", address(&there.ready("server").await?)?);
    let expect = there.id("server");
    let call = ["call", "--target", &target, "--expect", &expect, "--every", "100ms", "--audience", AUDIENCE];
    here.cluster.apply(&PodSpec::demo("client", &call).pod(&here.namespace)).await?;
    here.ready("client").await.map(drop)
}

/// R6, R16, R50: mTLS and tokens across the boundary as far as both owners allow, and no further.
#[tokio::test]
async fn two_clusters_are_introduced_by_their_bundles_alone_and_each_of_three_consents_ends_it() {
    federated("consent", async |here, there| {
        authorities(here, there, &["client", "server"]).await?;
        let (reason, message) = here.identity_condition("client", "Federated", "False").await?;
        ensure!(reason == "NoRemoteTrustDomain", "{reason}: {message}");
        introduce(here, there, "").await?;
        call(here, there).await?;
        here.traffic_continues(20).await?;
        here.identity_condition("client", "Federated", "True").await?;
        let (_, message) = here.domain_condition(&there.trust_domain, "Ready", "True").await?;
        ensure!(message.contains("2 WorkloadIdentities"), "{message}");

        let file = format!("{FOLDER}/{}{TRUST_BUNDLE_SUFFIX}", there.trust_domain);
        here.file("client", &file).await?;
        let bundle = there.bundle_document().await?;
        let remote = |namespaces: Vec<&'static str>| {
            here.remote_yaml(there, &RemoteYaml { bundle: bundle.clone(), namespaces, ..RemoteYaml::default() })
        };
        here.cluster.apply(&remote(vec!["elsewhere"])).await?;
        until("the bundle is withdrawn", DEFAULT_TIMEOUT, async || {
            Ok((!here.exec("client", &["/countersign-demo", "cat", &file]).await?.success).then_some(()))
        })
        .await?;
        let (reason, message) = here.identity_condition("client", "Federated", "False").await?;
        ensure!(reason == "NamespaceNotAdmitted" && message.contains(&here.namespace), "{reason}: {message}");
        let (reason, message) = here.domain_condition(&there.trust_domain, "ConsentsComplete", "False").await?;
        ensure!(reason == "NamespaceNotAdmitted" && message.contains("client"), "{reason}: {message}");
        here.wait_for_output("client", "that a call failed", DEFAULT_TIMEOUT, |line| is_event(line, "failed")).await?;
        Ok(())
    })
    .await;
}
