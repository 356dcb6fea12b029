//! Clocks that are off by an hour: of one replica of the operator, of all replicas, and of agents. Nothing is accepted that
//! is invalid at the real time, and no decision made with a wrong clock persists once it is corrected.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    cluster::SYSTEM,
    faults::{Fault, Faults, faulty, hold_for, report_counts},
    fixture::PodSpec,
    pods::{AGENT, is_event, is_ready, restarts},
    replicas::{OPERATOR, running},
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::LogParams};
use serde_json::json;
use tokio::time::Instant;

const HOUR: i64 = 3_600;

/// Changes the clock of a pod's container.
async fn set(faults: &Faults, pod: &Pod, container: &str, ahead: i64) -> Result<Fault> {
    let id = running(pod, container).with_context(|| format!("{} does not run", pod.name_any()))?;
    faults.begin(&["clock", "--container", &id, "--ahead", &ahead.to_string()]).await
}

/// The log of a replica of the operator.
async fn log(world: &World, pod: &str) -> Result<String> {
    Ok(world.cluster.api::<Pod>(SYSTEM).logs(pod, &LogParams::default()).await?)
}

/// The leader's clock is off, which could do most harm.
async fn leader_is_off(world: &World, faults: &Faults, ahead: i64) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 60s}")).await?;
    if world.replicas(OPERATOR).await? < 2 {
        world.scale(OPERATOR, 2).await?;
    }
    world.traffic("50ms").await?;
    let before = world.traffic_continues(20).await?;
    let (off, _) = until("one replica leads", DEFAULT_TIMEOUT, async || world.leader().await).await?;
    let pods = world.cluster.api::<Pod>(SYSTEM);
    let victim = pods.get(&off).await?;
    let fault = set(faults, &victim, "operator", ahead).await?;
    let begun = Instant::now();
    until("another replica leads", DEFAULT_TIMEOUT, async || {
        Ok(world.leader().await?.filter(|(name, _)| *name != off).map(drop))
    })
    .await?;
    let takeover = begun.elapsed();
    until("the one whose clock is off is not ready", DEFAULT_TIMEOUT, async || {
        Ok((!is_ready(&pods.get(&off).await?)).then_some(()))
    })
    .await?;
    let unready = begun.elapsed();

    world.new_pod("meanwhile").await?;
    let during = world.both_renewed(before, DEFAULT_TIMEOUT * 2).await?;
    ensure!(log(world, &off).await?.contains("set the clock of its node"), "{off} does not say why");
    fault.end().await?;
    let back = Instant::now();
    world.settled().await?;
    let back = back.elapsed();
    world.new_pod("after").await?;
    let after = world.both_renewed(during, DEFAULT_TIMEOUT * 2).await?;
    let now = pods.get(&off).await?;
    ensure!(running(&now, "operator") == running(&victim, "operator"), "{off} was started anew");
    let counts = json!({
        "clock_ahead_seconds": ahead, "seconds_until_another_led": takeover.as_secs(), "new_pods": 2,
        "seconds_until_not_ready": unready.as_secs(), "seconds_until_back": back.as_secs(),
    });
    report_counts("the leader's clock is off", &after.since(before).counts(&counts))
}

/// The clocks of all replicas are off, as if the API server's clock were off.
async fn all_are_off(world: &World, faults: &Faults, ahead: i64, span: Duration) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 240s}")).await?;
    world.traffic("50ms").await?;
    let before = world.traffic_continues(20).await?;
    let mut set_back = Vec::new();
    for pod in world.product(OPERATOR).await? {
        set_back.push(set(faults, &pod, "operator", ahead).await?);
    }
    until("no replica is ready", DEFAULT_TIMEOUT, async || {
        Ok((!world.product(OPERATOR).await?.iter().any(is_ready)).then_some(()))
    })
    .await?;
    // A new trust domain, identity and pod.
    let other = World::new("clock-late").await?;
    other.create_namespace().await?;
    let outcome = async {
        world.cluster.apply(&other.trust_domain_yaml("")).await?;
        world.cluster.apply(&other.identity_yaml("late", "")).await?;
        world.cluster.apply(&PodSpec::hold("late").pod(&other.namespace)).await?;
        hold_for(span).await;
        ensure!(!is_ready(&other.pods().get("late").await?), "a pod was given an identity by a wrong clock");
        let during = world.traffic_since(before, span.as_secs(), DEFAULT_TIMEOUT).await?;
        for fault in set_back {
            fault.end().await?;
        }
        let back = Instant::now();
        other.ready("late").await?;
        let id = other.credential("late").await?.id;
        ensure!(id == other.id("late"), "late has {id}");
        let seconds = back.elapsed().as_secs();
        let after = world.both_renewed(during, DEFAULT_TIMEOUT * 2).await?;
        let counts = json!({ "clock_ahead_seconds": ahead, "seconds": span.as_secs(), "seconds_until_the_new_pod_had_its_identity": seconds });
        report_counts("the clocks of all replicas are off", &after.since(before).counts(&counts))
    };
    let outcome = outcome.await;
    other.end().await?;
    outcome
}

/// An agent's clock is off: it accepts nothing that is invalid by its clock, and its application keeps its credentials.
async fn agents_are_off(world: &World, faults: &Faults, ahead: i64, span: Duration) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 240s}")).await?;
    world.traffic("50ms").await?;
    let before = world.traffic_continues(20).await?;
    let noticed_before = [times_set_back(world, "client").await?, times_set_back(world, "server").await?];
    let mut set_back = Vec::new();
    for pod in ["client", "server"] {
        set_back.push(set(faults, &world.pods().get(pod).await?, AGENT, ahead).await?);
    }
    hold_for(span).await;
    let during = world.traffic_since(before, span.as_secs(), DEFAULT_TIMEOUT).await?;
    for fault in set_back {
        fault.end().await?;
    }
    let back = Instant::now();
    let after = world.both_renewed(during, DEFAULT_TIMEOUT * 2).await?;
    // The clock goes back at the beginning or at the end, and the agent detects that by itself.
    for (pod, before) in ["client", "server"].into_iter().zip(noticed_before) {
        until(&format!("{pod}'s agent says that its clock was set back"), DEFAULT_TIMEOUT, async || {
            Ok((times_set_back(world, pod).await? > before).then_some(()))
        })
        .await?;
    }
    for pod in ["client", "server"] {
        ensure!(restarts(&world.pods().get(pod).await?) == 0, "{pod} was restarted");
        ensure!(world.app_output(pod).await?.iter().all(|line| !is_event(line, "failed")), "a call of {pod} failed");
    }
    let counts = json!({
        "clock_ahead_seconds": ahead, "seconds": span.as_secs(), "seconds_until_renewed": back.elapsed().as_secs(),
    });
    report_counts("agents' clocks are off", &after.since(before).counts(&counts))
}

/// How often the agent of a pod has detected that its clock was set back.
async fn times_set_back(world: &World, pod: &str) -> Result<usize> {
    world.count_in_agent_log(pod, "the clock was set back").await
}

#[tokio::test]
async fn a_leader_whose_clock_is_an_hour_ahead_serves_nobody_and_the_others_do() {
    faulty("clock", async |world, faults| leader_is_off(world, faults, HOUR).await).await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_a_leader_whose_clock_is_an_hour_behind_serves_nobody_and_the_others_do() {
    faulty("clock-behind", async |world, faults| leader_is_off(world, faults, -HOUR).await).await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_nothing_stays_of_clocks_that_were_all_an_hour_off() {
    for ahead in [HOUR, -HOUR] {
        faulty("clocks", async |world, faults| all_are_off(world, faults, ahead, Duration::from_secs(60)).await).await;
    }
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_agents_whose_clocks_are_an_hour_off_lose_nothing() {
    for ahead in [HOUR, -HOUR] {
        faulty("clock-agent", async |world, faults| {
            agents_are_off(world, faults, ahead, Duration::from_secs(45)).await
        })
        .await;
    }
}
