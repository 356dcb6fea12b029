//! Components of the product hang, are cut off from each other, or are unavailable when pods need them: the product
//! recovers without intervention.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    cluster::SYSTEM,
    faults::{Faults, alone, faulty, hold_for, report_counts},
    fixture::PodSpec,
    issuer::{Issuer, csr},
    pods::{AGENT, APP, container_statuses, identity_of, restarts},
    replicas::{OPERATOR, address, running},
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::time::Instant;
use tonic::Code;

/// A leader that hangs does not block the others, and once it resumes it detects that it no longer leads.
#[tokio::test]
async fn a_paused_leader_is_replaced_and_does_not_write_when_it_wakes() {
    faulty("leader", async |world, faults| {
        world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 60s}")).await?;
        if world.replicas(OPERATOR).await? < 2 {
            world.scale(OPERATOR, 2).await?;
        }
        world.traffic("50ms").await?;
        let before = world.traffic_continues(20).await?;
        let (old, transitions) = until("one replica leads", DEFAULT_TIMEOUT, async || world.leader().await).await?;
        let pods = world.cluster.api::<Pod>(SYSTEM);
        let container = running(&pods.get(&old).await?, "operator").context("the leader runs")?;
        let fault = faults.begin(&["pause", "--container", &container]).await?;
        let begun = Instant::now();
        let (new, _) = until("another replica leads", DEFAULT_TIMEOUT, async || {
            Ok(world.leader().await?.filter(|(name, _)| *name != old))
        })
        .await?;
        let takeover = begun.elapsed();

        // The new leader writes, and pods that would have used the old one are served.
        world.new_pod("paused").await?;
        fault.end().await?;
        world.new_pod("resumed").await?;
        world.settled().await?;
        let (now, transitions_now) = world.leader().await?.context("one replica leads")?;
        ensure!(now == new, "{now} leads, and {new} did when {old} was woken");
        let woken = pods.get(&old).await?;
        ensure!(running(&woken, "operator").as_deref() == Some(&container), "the paused one was started anew");
        let during = world.traffic_since(before, 200, DEFAULT_TIMEOUT).await?.since(before);
        let counts = json!({
            "takeover_seconds": takeover.as_secs_f64().round(), "transitions": transitions_now - transitions, "new_pods": 2,
        });
        report_counts("leader paused and resumed", &during.counts(&counts))
    })
    .await;
}

/// R25: packets vanish without an error. An SVID is renewed at 60 % of its life at the latest, and agents retry every 35 s
/// at least: after a cut of 60 % of a life, each agent must have tried to renew in vain, and must succeed before the rest
/// has passed.
async fn cut_off(world: &World, faults: &Faults, life: u64) -> Result<()> {
    let span = Duration::from_secs(life * 6 / 10 + 1);
    world.cluster.apply(&world.trust_domain_yaml(&format!("x509: {{svidTTL: {life}s}}"))).await?;
    world.traffic("50ms").await?;
    let before = world.traffic_continues(20).await?;
    let issuer = world.cluster.control_plane().await?.issuer;
    let mut arguments = vec!["block".to_owned(), "--to".to_owned(), issuer];
    for pod in ["client", "server"] {
        arguments.extend(["--pod".to_owned(), address(&world.pods().get(pod).await?)?]);
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let failed_before = [failed_streams(world, "client").await?, failed_streams(world, "server").await?];
    let fault = faults.begin(&arguments).await?;
    hold_for(span).await;
    let during = world.traffic_since(before, 10 * span.as_secs(), DEFAULT_TIMEOUT).await?;
    let failed = [failed_streams(world, "client").await?, failed_streams(world, "server").await?];
    fault.end().await?;

    let back = Instant::now();
    let after = world.both_renewed(during, DEFAULT_TIMEOUT + Duration::from_secs(life)).await?;
    let (unchanged, renewed) = (during.since(before), after.since(before));
    ensure!(unchanged.serials == 0 && unchanged.peer_serials == 0, "renewed while cut off: {unchanged:?}");
    for (pod, (before, now)) in ["client", "server"].into_iter().zip(failed_before.into_iter().zip(failed)) {
        ensure!(now > before, "{pod} did not notice that it was cut off, or did not try again");
        ensure!(restarts(&world.pods().get(pod).await?) == 0, "{pod} was restarted");
    }
    let counts = json!({
        "seconds": span.as_secs(), "life": life, "renewals_while_cut_off": unchanged.serials + unchanged.peer_serials,
        "attempts_that_failed": failed.iter().sum::<usize>() - failed_before.iter().sum::<usize>(),
        "seconds_until_renewed": back.elapsed().as_secs(),
    });
    report_counts("agents cut off from the operator", &renewed.counts(&counts))
}

/// How often the agent of a pod has lost its stream.
async fn failed_streams(world: &World, pod: &str) -> Result<usize> {
    world.count_in_agent_log(pod, "no stream to the issuer").await
}

#[tokio::test]
async fn agents_that_are_cut_off_from_the_operator_come_back_by_themselves() {
    faulty("cut-off", async |world, faults| cut_off(world, faults, 150).await).await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_agents_are_cut_off_from_the_operator_for_three_minutes() {
    faulty("cut-off-long", async |world, faults| cut_off(world, faults, 300).await).await;
}

/// R27: pods that were created while there was no operator.
async fn held(world: &World, accounts: usize, replicas: u32, span: Duration) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("")).await?;
    let accounts: Vec<String> = (0..accounts).map(|number| format!("held-{number}")).collect();
    let before = world.replicas(OPERATOR).await?;
    world.scale(OPERATOR, 0).await?;
    let begun = Instant::now();
    world.idle(&accounts, replicas).await?;
    let replicas = usize::try_from(replicas)?;
    let all = accounts.len() * replicas;
    until("all pods are held", DEFAULT_TIMEOUT * 2, async || Ok((held_pods(world).await? == all).then_some(())))
        .await?;
    hold_for(span.saturating_sub(begun.elapsed())).await;
    let waiting = held_pods(world).await?;
    ensure!(waiting == all, "{waiting} of {all} pods are still held");

    world.scale(OPERATOR, before).await?;
    let back = Instant::now();
    let started = world.each_has_its_own(&accounts, replicas, DEFAULT_TIMEOUT * 4).await?;
    let took = back.elapsed();
    let mut again = 0;
    for pod in &world.pods().list(&kube::api::ListParams::default()).await?.items {
        again +=
            container_statuses(pod).filter(|status| status.name == APP).map(|status| status.restart_count).sum::<i32>();
    }
    ensure!(again == 0, "applications were started {again} times too often");
    report_counts(
        "pods held through an outage",
        &json!({ "seconds": span.as_secs(), "held": all, "started_with_their_own_identity": started,
                 "seconds_until_all_had_started": took.as_secs(), "applications_restarted": again }),
    )
}

/// The number of pods with a running agent and an application that has not started.
async fn held_pods(world: &World) -> Result<usize> {
    let pods = world.pods().list(&kube::api::ListParams::default()).await?.items;
    let waits = |pod: &&Pod| {
        let has = |name: &str, started: bool| {
            container_statuses(pod).any(|status| status.name == name && status.started.unwrap_or(false) == started)
        };
        has(AGENT, false) && has(APP, false)
    };
    Ok(pods.iter().filter(waits).count())
}

#[tokio::test]
async fn pods_that_were_held_through_an_outage_start_by_themselves() {
    alone("held-out", async |world| held(world, 5, 2, Duration::from_secs(45)).await).await;
}

#[tokio::test]
#[ignore = "soak"]
async fn soak_fifty_pods_are_held_through_three_minutes() {
    alone("held-long", async |world| held(world, 5, 10, Duration::from_secs(180)).await).await;
}

/// R9, as far as possible with a bearer token: whoever has the token of a pod is treated as that pod, and as no other. A
/// thief takes the session from the agent, which causes an event; the agent takes it back.
#[tokio::test]
async fn a_token_presented_while_its_session_is_live_displaces_it_with_an_event() {
    alone("replay", async |world| {
        // Each replica knows only its own streams.
        world.scale(OPERATOR, 1).await?;
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("victim", "")).await?;
        world.cluster.apply(&PodSpec::hold("victim").pod(&world.namespace)).await?;
        let pod = identity_of(&world.ready("victim").await?)?;
        let audience = world.cluster.control_plane().await?.audience;
        let token = world.service_account_token("victim", &[&audience], Some(&pod)).await?;
        let issuer = Issuer::connect(&world.cluster).await?;

        let mut session = issuer.open(&token).await?;
        let state = session.state().await?;
        let ids: Vec<_> = state.identities.iter().map(|identity| identity.spiffe_id.as_str()).collect();
        ensure!(ids == [world.id("victim")], "the token gives {ids:?}");
        let displaced = |event: &k8s_openapi::api::core::v1::Event| event.reason.as_deref() == Some("SessionDisplaced");
        world.event("victim", "that its session was displaced", displaced).await?;

        let begun = Instant::now();
        let ended = until("the agent takes its session back", DEFAULT_TIMEOUT, async || {
            Ok(session.state().await.err().filter(|status| status.code() != Code::DeadlineExceeded))
        })
        .await?;
        ensure!(ended.code() == Code::Aborted, "the session ended with {ended}");
        let took = begun.elapsed();
        let id = world.credential("victim").await?.id;
        ensure!(id == world.id("victim"), "the pod has {id}");
        let (request, _) = csr(&[], &[])?;
        ensure!(session.certificate(request, "").await.is_err(), "a displaced session was answered");
        let counts = json!({ "displaced": 2, "seconds_until_the_agent_was_back": took.as_secs() });
        report_counts("a token presented while its session is live", &counts)
    })
    .await;
}
