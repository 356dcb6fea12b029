//! Failures of the API server and of etcd: identities in use are not affected, and pending work continues without
//! intervention.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::time::Duration;

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    faults::{Fault, Faults, faulty, hold_for, report_counts},
    fixture::PodSpec,
    replicas::OPERATOR,
    traffic::Sums,
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::LogParams};
use serde_json::{Value, json};

/// Lifetime of leaves in seconds: a longer fault is survived only by renewing.
const LIFE: u64 = 20;

/// R25, R27: known identities are still issued, from the index.
async fn without_api_server(world: &World, faults: &Faults, test: &str, span: Duration) -> Result<()> {
    prepare(world).await?;
    let before = world.traffic_continues(20).await?;
    let fault = faults.begin(&["stop", "kube-apiserver"]).await?;
    hold_for(span).await;
    fault.end().await?;

    let during = world.traffic_since(before, 10 * span.as_secs(), DEFAULT_TIMEOUT).await?.since(before);
    renewals_went_on(during, span)?;
    let new_pods = new_pods_start_after_outage(world, "after", 3).await?;
    report_counts(test, &during.counts(&json!({ "seconds": span.as_secs(), "new_pods": new_pods })))
}

#[tokio::test]
async fn identities_are_renewed_while_the_api_server_is_gone() {
    faulty("api-gone", async |world, faults| {
        without_api_server(world, faults, "API server gone", Duration::from_secs(40)).await
    })
    .await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_identities_are_renewed_while_the_api_server_is_gone_for_five_minutes() {
    faulty("api-gone-long", async |world, faults| {
        without_api_server(world, faults, "API server gone", Duration::from_secs(300)).await
    })
    .await;
}

/// etcd is killed once, which must not lose data, and then stopped for a while.
async fn without_etcd(world: &World, faults: &Faults, test: &str, span: Duration) -> Result<()> {
    prepare(world).await?;
    let before = world.traffic_continues(20).await?;
    faults.run_once(&["kill", "etcd"]).await?;
    let fault = faults.begin(&["stop", "etcd"]).await?;
    hold_for(span).await;
    fault.end().await?;

    let during = world.traffic_since(before, 10 * span.as_secs(), DEFAULT_TIMEOUT).await?.since(before);
    renewals_went_on(during, span)?;
    let new_pods = new_pods_start_after_outage(world, "after", 3).await?;
    report_counts(test, &during.counts(&json!({ "seconds": span.as_secs(), "new_pods": new_pods })))
}

#[tokio::test]
async fn a_restart_of_etcd_is_not_noticed() {
    faulty("etcd", async |world, faults| {
        without_etcd(world, faults, "etcd killed, then gone", Duration::from_secs(26)).await
    })
    .await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_etcd_is_gone_for_two_minutes() {
    faulty("etcd-long", async |world, faults| {
        without_etcd(world, faults, "etcd killed, then gone", Duration::from_secs(120)).await
    })
    .await;
}

/// R27: every answer of the API server to the operator is delayed, also those that open its watches.
#[tokio::test]
async fn a_slow_api_server_slows_what_is_new_and_nothing_else() {
    faulty("api-slow", async |world, faults| {
        prepare(world).await?;
        let before = world.traffic_continues(20).await?;
        let mut fault = between(world, faults).await?;
        fault.send("slow 2000").await?;
        fault.send("cut").await?;
        let new_pods = new_pods_start(world, "slow", 3).await?;
        let during = world.traffic_since(before, 200, DEFAULT_TIMEOUT).await?.since(before);
        let seen = fault.send("pass").await?;
        fault.end().await?;
        ensure!(number(&seen, "slowed") > 0, "no answer was slow: {seen}");
        let counts = json!({ "slow_answers": seen["slowed"], "new_pods": new_pods });
        report_counts("API server slow by 2 s", &during.counts(&counts))
    })
    .await;
}

/// The operator gets only refusals: known identities are still issued, and new pods start afterwards.
async fn refusing(world: &World, faults: &Faults, test: &str, span: Duration) -> Result<()> {
    prepare(world).await?;
    let before = world.traffic_continues(20).await?;
    let mut fault = between(world, faults).await?;
    let mut refused = Vec::new();
    for status in ["429", "500"] {
        fault.send(&format!("answer {status}")).await?;
        fault.send("cut").await?;
        let name = format!("new-{status}");
        world.cluster.apply(&world.identity_yaml(&name, "")).await?;
        world.cluster.apply(&PodSpec::hold(&name).pod(&world.namespace)).await?;
        hold_for(span).await;
        refused.push(number(&fault.send("count").await?, "refused"));
    }
    let [of_429, of_both] = *refused.as_slice() else { unreachable!("two statuses") };
    let seen = fault.send("pass").await?;
    for status in ["429", "500"] {
        let name = format!("new-{status}");
        world.ready(&name).await?;
        let id = world.credential(&name).await?.id;
        ensure!(id == world.id(&name), "{name} has {id}");
    }
    fault.end().await?;
    let during = world.traffic_since(before, 20 * span.as_secs(), DEFAULT_TIMEOUT).await?.since(before);
    renewals_went_on(during, span * 2)?;
    let of_500 = of_both - of_429;
    // Each replica has five watches, a lease and a few writers, each with its backoff: the requests of a minute are
    // hundreds, not thousands.
    let most = u64::try_from(world.operators().await?.len())? * (40 + 4 * span.as_secs());
    for refused in [of_429, of_500] {
        ensure!(refused > 0, "nothing was refused: {seen}");
        ensure!(refused <= most, "the operator asked {refused} times in {span:?}, at most {most} are patience");
    }
    let counts = json!({ "seconds_each": span.as_secs(), "refused_429": of_429, "refused_500": of_500, "new_pods": 2 });
    report_counts(test, &during.counts(&counts))
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_refusals_of_the_api_server_are_waited_out_for_a_minute_each() {
    faulty("api-refuses-long", async |world, faults| {
        refusing(world, faults, "API server answers 429, then 500", Duration::from_secs(60)).await
    })
    .await;
}

/// etcd's history is compacted: watches cannot be resumed, and everything is listed again. Objects created meanwhile are
/// known afterwards, and deleted ones are forgotten.
#[tokio::test]
async fn after_a_broken_watch_and_a_compacted_history_all_is_listed_anew() {
    faulty("compacted", async |world, faults| {
        prepare(world).await?;
        world.cluster.apply(&world.identity_yaml("goes", "")).await?;
        world.cluster.apply(&PodSpec::hold("goes").pod(&world.namespace)).await?;
        world.ready("goes").await?;
        let before = world.traffic_continues(20).await?;
        // Earlier faults may have left such log lines.
        let expired_before = expired_watches(world).await?;
        let mut fault = between(world, faults).await?;
        fault.send("answer 500").await?;
        fault.send("cut").await?;

        // Meanwhile objects change, and the history of the changes is compacted.
        world.cluster.apply(&world.identity_yaml("comes", "")).await?;
        world.cluster.apply(&PodSpec::hold("comes").pod(&world.namespace)).await?;
        let gone = world.cluster.workload_identities(&world.namespace).await?;
        countersign_e2e::apply::delete(&gone, "goes").await?;
        faults.run_once(&["kill", "kube-apiserver"]).await?;
        faults.run_once(&["compact"]).await?;
        fault.send("pass").await?;

        world.ready("comes").await?;
        let id = world.credential("comes").await?.id;
        ensure!(id == world.id("comes"), "the new one has {id}");
        until("the deleted identity is withdrawn", DEFAULT_TIMEOUT, async || {
            Ok(world.credential("goes").await.is_err().then_some(()))
        })
        .await?;
        fault.end().await?;
        let during = world.traffic_since(before, 100, DEFAULT_TIMEOUT).await?.since(before);
        let expired = expired_watches(world).await?.saturating_sub(expired_before);
        ensure!(expired > 0, "no watch was told that its history is gone");
        report_counts(
            "watch broken, history compacted",
            &during.counts(&json!({ "watches_expired": expired, "new_pods": 1, "withdrawn": 1 })),
        )
    })
    .await;
}

/// Both sides were renewed as often as required in this time: a leaf is renewed at 60 % of its life at the latest. The
/// first renewal may have happened just before.
fn renewals_went_on(during: Sums, span: Duration) -> Result<()> {
    let least = span.as_secs() * 10 / (LIFE * 6) - 1;
    ensure!(least > 0, "no renewal falls due for certain in {span:?}");
    ensure!(during.serials >= least && during.peer_serials >= least, "renewals did not go on: {during:?}");
    Ok(())
}

/// A trust domain with short-lived SVIDs, and traffic.
async fn prepare(world: &World) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml(&format!("x509: {{svidTTL: {LIFE}s}}"))).await?;
    world.traffic("50ms").await
}

/// Starts a proxy between the operator's replicas and the API server.
async fn between(world: &World, faults: &Faults) -> Result<Fault> {
    let addresses = world.operators().await?;
    let mut arguments = vec!["between"];
    for address in &addresses {
        arguments.extend(["--pod", address]);
    }
    faults.begin(&arguments).await
}

/// Creates identities and pods for them, waits until all pods have theirs, and returns their number.
async fn new_pods_start(world: &World, name: &str, count: u64) -> Result<u64> {
    for name in names(name, count) {
        world.cluster.apply(&world.identity_yaml(&name, "")).await?;
        world.cluster.apply(&PodSpec::hold(&name).pod(&world.namespace)).await?;
    }
    all_get_theirs(world, name, count).await
}

/// As [`new_pods_start`], once Kubernetes has recovered: after an outage it may treat a node as lost until its kubelet
/// reports, and the webhook's pods with it, so that their Service has no endpoints. Clients that create pods retry, as
/// Deployments do.
async fn new_pods_start_after_outage(world: &World, name: &str, count: u64) -> Result<u64> {
    for name in names(name, count) {
        world.cluster.apply(&world.identity_yaml(&name, "")).await?;
        let pod = PodSpec::hold(&name).pod(&world.namespace);
        until("a pod is admitted", DEFAULT_TIMEOUT, async || world.cluster.apply(&pod).await.map(Some)).await?;
    }
    all_get_theirs(world, name, count).await
}

async fn all_get_theirs(world: &World, name: &str, count: u64) -> Result<u64> {
    for name in names(name, count) {
        world.ready(&name).await?;
        let id = world.credential(&name).await?.id;
        ensure!(id == world.id(&name), "{name} has {id}");
    }
    Ok(count)
}

fn names(name: &str, count: u64) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{name}-{number}"))
}

/// The number of watches that the operators' logs report as restarted because their history was gone (410).
async fn expired_watches(world: &World) -> Result<usize> {
    let pods = world.cluster.api::<Pod>(countersign_e2e::cluster::SYSTEM);
    let mut expired = 0;
    for pod in world.product(OPERATOR).await? {
        let log = pods.logs(&pod.name_any(), &LogParams::default()).await?;
        expired += log.lines().filter(|line| line.contains("too old resource version")).count();
    }
    Ok(expired)
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}
