//! Two clusters are introduced by bundles in their TrustDomains alone: no endpoint, and no network between control planes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    credential::{FOLDER, TRUST_BUNDLE_SUFFIX},
    faults::report_counts,
    federation::{RemoteYaml, federated},
    fixture::{AUDIENCE, PodSpec},
    pods::is_event,
    replicas::address,
    wait::{DEFAULT_TIMEOUT, until},
};
use kube::api::DeleteParams;
use serde_json::{Value, json};

/// Leaves live for an hour: whatever changes within a test was pushed.
pub(crate) const AUTHORITY: &str = "bundleRefreshHint: 1s";

/// Each cluster has a trust domain that grants federation with the other's, and an identity for each account that names it.
pub(crate) async fn authorities(here: &World, there: &World, accounts: &[&str]) -> Result<()> {
    for (world, other) in [(here, there), (there, here)] {
        grant(world, &[&other.trust_domain]).await?;
        for account in accounts {
            name(world, account, &[&other.trust_domain]).await?;
        }
    }
    Ok(())
}

/// The test's trust domain grants federation with these.
pub(crate) async fn grant(world: &World, foreign: &[&str]) -> Result<()> {
    let grant = format!("federatesWith: {}", json!(foreign));
    world.cluster.apply(&world.granting_yaml(AUTHORITY, &grant)).await.map(drop)
}

/// An account's identity names these foreign trust domains.
pub(crate) async fn name(world: &World, account: &str, foreign: &[&str]) -> Result<()> {
    let more = format!("federatesWith: {}\njwt: {{audiences: [{AUDIENCE}]}}", json!(foreign));
    world.cluster.apply(&world.identity_yaml(account, &more)).await.map(drop)
}

/// `world` is told the bundle of `other`, for these namespaces. `more` are further fields of `spec.remote`.
pub(crate) async fn introduce(world: &World, other: &World, namespaces: &[&str], more: &str) -> Result<()> {
    let bundle = other.bundle_document().await?;
    let remote = RemoteYaml { bundle, namespaces: namespaces.to_vec(), more, ..RemoteYaml::default() };
    world.cluster.apply(&world.remote_yaml(other, &remote)).await.map(drop)
}

/// A server in `there`, and a client in `here` that calls it ten times a second, each time with a token, which the server has its
/// agent validate.
pub(crate) async fn call(here: &World, there: &World) -> Result<()> {
    let serve = ["serve", "--listen", "0.0.0.0:8443", "--allow", &here.id("client"), "--audience", AUDIENCE];
    there.cluster.apply(&PodSpec::demo("server", &serve).pod(&there.namespace)).await?;
    let target = format!("{}:8443", address(&there.ready("server").await?)?);
    let expect = there.id("server");
    let call = ["call", "--target", &target, "--expect", &expect, "--every", "100ms", "--audience", AUDIENCE];
    here.cluster.apply(&PodSpec::demo("client", &call).pod(&here.namespace)).await?;
    here.ready("client").await.map(drop)
}

/// Waits until a call fails, and returns how long that took.
pub(crate) async fn refused(here: &World) -> Result<Duration> {
    let begun = Instant::now();
    last_is(here, "failed").await?;
    Ok(begun.elapsed())
}

/// Waits until calls succeed again.
pub(crate) async fn accepted(here: &World) -> Result<()> {
    last_is(here, "recovered").await
}

/// Waits until the calls last did that: `failed`, or `recovered` after they had failed.
async fn last_is(here: &World, wanted: &str) -> Result<()> {
    until(&format!("calls have {wanted}"), DEFAULT_TIMEOUT, async || {
        let said = here.app_output("client").await?;
        let last = said.iter().rev().find(|line| is_event(line, "failed") || is_event(line, "recovered"));
        Ok(last.filter(|line| is_event(line, wanted)).map(drop))
    })
    .await
}

/// Waits until a first call has succeeded.
pub(crate) async fn flows(here: &World) -> Result<()> {
    here.wait_for_output("client", "that it called", DEFAULT_TIMEOUT, |line| is_event(line, "handshake"))
        .await
        .map(drop)
}

/// R6, R16, R48, R50: mTLS and tokens across the boundary as far as both owners allow. Each of the three consents is withdrawn and
/// given back, on the calling side and on the side that is called; each missing one is named where its owner looks.
#[tokio::test]
async fn of_three_consents_each_ends_the_calls_when_it_is_withdrawn_and_is_named() {
    federated("consent", async |here, there| {
        let foreign = [there.trust_domain.as_str()];
        authorities(here, there, &["client", "server"]).await?;
        here.identity_condition("client", "Federated", "False", "NoRemoteTrustDomain").await?;
        introduce(here, there, &[&here.namespace], "").await?;
        introduce(there, here, &[&there.namespace], "").await?;
        call(here, there).await?;
        flows(here).await?;
        here.identity_condition("client", "Federated", "True", "Complete").await?;
        let (_, message) = here.domain_condition(&there.trust_domain, "Ready", "True", "Bootstrapped").await?;
        ensure!(message.contains("2 WorkloadIdentities"), "{message}");
        let file = format!("{FOLDER}/{}{TRUST_BUNDLE_SUFFIX}", there.trust_domain);
        here.file("client", &file).await?;
        let mut took = Vec::new();

        introduce(here, there, &["elsewhere"], "").await?;
        took.push(refused(here).await?);
        let missing = "NamespaceNotAdmitted";
        let (_, message) = here.identity_condition("client", "Federated", "False", missing).await?;
        ensure!(message.contains(&here.namespace), "{message}");
        let (_, message) = here.domain_condition(&there.trust_domain, "ConsentsComplete", "False", missing).await?;
        ensure!(message.contains("client"), "{message}");
        ensure!(!here.exec("client", &["/countersign-demo", "cat", &file]).await?.success, "the file is left");
        introduce(here, there, &[&here.namespace], "").await?;
        accepted(here).await?;

        grant(here, &[]).await?;
        took.push(refused(here).await?);
        let (_, message) = here.identity_condition("client", "Federated", "False", "FederationNotGranted").await?;
        ensure!(message.contains("spec.grants[0]"), "{message}");
        here.identity_condition("client", "Ready", "True", "").await?;
        grant(here, &foreign).await?;
        accepted(here).await?;

        name(here, "client", &[]).await?;
        took.push(refused(here).await?);
        name(here, "client", &foreign).await?;
        accepted(here).await?;

        // The side that is called refuses as well: the certificate, and the token by its agent.
        introduce(there, here, &["elsewhere"], "").await?;
        took.push(refused(here).await?);
        introduce(there, here, &[&there.namespace], "").await?;
        accepted(here).await?;
        let took: Vec<u128> = took.iter().map(Duration::as_millis).collect();
        report_counts("consents", &json!({ "refused_after_ms": took }))
    })
    .await;
}

/// R16: the allowed foreign id passes, its sibling does not, where ids are checked. A chain alone tells nothing of paths: the
/// server's own check of the certificate passes, and its agent refuses the token.
#[tokio::test]
async fn of_a_foreign_trust_domain_only_the_accepted_paths_pass_the_agents_validation() {
    federated("paths", async |here, there| {
        authorities(here, there, &["client", "server"]).await?;
        introduce(here, there, &[&here.namespace], "").await?;
        let sibling = format!("paths: ['/ns/{}/sa/other']", here.namespace);
        let accepted_path = format!("paths: ['/ns/*/sa/client', '/ns/{}/sa/other']", here.namespace);
        introduce(there, here, &[&there.namespace], &accepted_path).await?;
        call(here, there).await?;
        flows(here).await?;
        introduce(there, here, &[&there.namespace], &sibling).await?;
        refused(here).await?;
        let said = there.app_output("server").await?;
        let last = said.iter().rev().find(|line| line["event"] == "failed");
        let error = last.and_then(|line| line["error"].as_str()).unwrap_or_default();
        ensure!(error.contains("its trust domain is accepted here for other paths only"), "{error}");
        introduce(there, here, &[&there.namespace], &accepted_path).await?;
        accepted(here).await
    })
    .await;
}

/// R50: a remote trust domain of which nothing is known, or whose bundle is none, keeps its bundle away and nothing else.
#[tokio::test]
async fn a_remote_that_is_absent_or_fails_delays_nothing_else_of_a_pod() {
    federated("absent", async |here, there| {
        authorities(here, there, &["holder"]).await?;
        here.cluster.apply(&PodSpec::hold("holder").pod(&here.namespace)).await?;
        here.ready("holder").await?;
        here.identity_condition("holder", "Federated", "False", "NoRemoteTrustDomain").await?;

        // Nothing listens there, and there is no bundle to begin with.
        let endpoint = format!("url: 'https://{}:1/', profile: https_web", there.node_address().await?);
        let remote = RemoteYaml { endpoint, namespaces: vec![&here.namespace], ..RemoteYaml::default() };
        here.cluster.apply(&here.remote_yaml(there, &remote)).await?;
        let (_, message) = here.domain_condition(&there.trust_domain, "PollFailing", "True", "").await?;
        ensure!(message.contains("(1 in a row)"), "{message}");
        here.identity_condition("holder", "Federated", "False", "NoBundle").await?;
        here.cluster.apply(&PodSpec::hold("second").account("holder").pod(&here.namespace)).await?;
        here.ready("second").await?;
        ensure!(here.credential("second").await?.id == here.id("holder"));

        // Another trust domain with the keys of a trust domain of ours: each could forge the other's tokens.
        let mut keys: Value = serde_json::from_str(&here.bundle_document().await?)?;
        let is_jwt = |key: &Value| key.get("use").and_then(Value::as_str) == Some("jwt-svid");
        keys.get_mut("keys").and_then(Value::as_array_mut).context("no keys")?.retain(is_jwt);
        let bundle = keys.to_string();
        let shared = RemoteYaml { bundle, namespaces: vec![&here.namespace], ..RemoteYaml::default() };
        here.cluster.trust_domains().await?.delete(&there.trust_domain, &DeleteParams::default()).await?;
        here.cluster.apply(&here.remote_yaml(there, &shared)).await?;
        let (_, message) = here.domain_condition(&there.trust_domain, "SharedAnchor", "True", "").await?;
        ensure!(message.contains(&here.trust_domain) && message.contains(&there.trust_domain), "{message}");

        // A peer that claims a trust domain of ours: neither polled nor handed out.
        let own = here.trust_domain.clone();
        let claims = here.remote_yaml(there, &remote).replace(
            &format!("metadata: {{name: {}}}\nspec:", there.trust_domain),
            &format!("metadata: {{name: {}}}\nspec:\n  trustDomain: {own}", there.trust_domain),
        );
        here.cluster.trust_domains().await?.delete(&there.trust_domain, &DeleteParams::default()).await?;
        here.cluster.apply(&claims).await?;
        let (_, message) = here.domain_condition(&there.trust_domain, "Ready", "False", "Duplicate").await?;
        ensure!(message.contains(&own), "{message}");
        here.identity_condition("holder", "Ready", "True", "").await.map(drop)
    })
    .await;
}
