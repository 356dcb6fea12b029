//! Faults while authorities change: an agent, a replica or the API server is gone or stopped, a Secret is edited or its event
//! is missed, a pod sleeps over a whole rotation. No call fails, and all end with the same authorities.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use countersign_contract::objects::journal::trust_domain_secret;
use countersign_e2e::{
    World,
    authorities::Authorities,
    cluster::{AUTHORITIES, SYSTEM},
    faults::{Fault, Faults, faulty, hold_for, report_counts},
    pods::{AGENT, APP, is_event},
    replicas::{OPERATOR, address, running},
    traffic::Sums,
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// How long before a switch an agent is cut off.
const LEAD: Duration = Duration::from_secs(5);

/// Life of the client's leaves where a switch is awaited.
const SWITCHED_LIFE: Duration = Duration::from_secs(20);

/// Leaves live for an hour: whoever has another one within a test got it by push.
const AUTHORITY: &str = "bundleRefreshHint: 1s";

/// R53: whoever does not acknowledge is named and delays the switch, at most by `maxDelay`; once it goes on, so does the
/// rotation.
#[tokio::test]
#[ignore = "soak"]
async fn soak_a_stopped_agent_is_named_and_delays_the_switch_until_it_goes_on() {
    faulty("stopped-agent", async |world, faults| {
        world.cluster.apply(&world.trust_domain_yaml(&format!("{AUTHORITY}, rotation: {{maxDelay: 1h}}"))).await?;
        world.traffic("50ms").await?;
        world.new_pod("sleeper").await?;
        let before = world.traffic_continues(1).await?;
        let then = world.authorities().await?;
        let fault = pause(world, faults, "sleeper", AGENT).await?;

        request_rotation(world, "1h").await?;
        until("the condition names the pod", DEFAULT_TIMEOUT, async || {
            let found = world.trust_domain_condition("BundleAcknowledged").await?;
            Ok(found.filter(|(status, message)| status == "False" && message.contains("sleeper")))
        })
        .await?;
        world
            .event("sleeper", "that it has not acknowledged", |event| {
                event.reason.as_deref() == Some("BundleNotAcknowledged")
            })
            .await?;
        let meanwhile = world.authorities().await?;
        ensure!(meanwhile.ids("active") == then.ids("active"), "switched without an acknowledgement: {meanwhile:?}");
        fault.end().await?;
        let now = rotated(world, &then).await?;
        let during = world.traffic_since(world.traffic_continues(1).await?, 200, DEFAULT_TIMEOUT).await?.since(before);
        report_counts(
            "an agent is stopped over a rotation",
            &during.counts(&json!({ "active": now.ids("active").len() })),
        )
    })
    .await;
}

/// R25, R53: the leader stops right after a rotation was requested, another prepares and switches, and the first one adds
/// nothing when it wakes.
#[tokio::test]
#[ignore = "soak"]
async fn soak_two_replicas_that_would_lead_prepare_one_successor() {
    faulty("two-leaders", async |world, faults| {
        two_replicas(world).await?;
        world.cluster.apply(&world.trust_domain_yaml(&format!("{AUTHORITY}, rotation: {{maxDelay: 20s}}"))).await?;
        world.traffic("50ms").await?;
        let before = world.traffic_continues(20).await?;
        let then = world.authorities().await?;
        let (leader, _) = until("one replica leads", DEFAULT_TIMEOUT, async || world.leader().await).await?;
        request_rotation(world, "20s").await?;
        let pod = world.cluster.api::<Pod>(SYSTEM).get(&leader).await?;
        let container = running(&pod, "operator").context("the leader runs")?;
        let fault = faults.begin(&["pause", "--container", &container]).await?;
        until("another replica leads", DEFAULT_TIMEOUT, async || {
            Ok(world.leader().await?.filter(|(name, _)| *name != leader))
        })
        .await?;
        let now = rotated(world, &then).await?;
        fault.end().await?;
        world.settled().await?;
        let during = world.traffic_since(before, 600, DEFAULT_TIMEOUT).await?.since(before);
        let after = world.authorities().await?;
        ensure!(after.ids("active") == now.ids("active"), "another switch: {now:?} {after:?}");
        ensure!((after.ids("active").len(), after.ids("prepared").len()) == (2, 2), "one of each kind: {after:?}");
        report_counts("the leader is stopped in a rotation", &during.counts(&json!({})))
    })
    .await;
}

/// R53: the authority stays trusted until the replica that does not know of the taint has learned of it.
#[tokio::test]
#[ignore = "soak"]
async fn soak_what_is_tainted_while_a_replica_is_cut_off_is_trusted_until_that_one_knows() {
    faulty("taint-cut-off", async |world, faults| {
        two_replicas(world).await?;
        world.cluster.apply(&world.trust_domain_yaml(AUTHORITY)).await?;
        world.traffic("50ms").await?;
        // Enough for either replica to have some.
        let accounts = ["idle".to_owned()];
        world.idle(&accounts, 6).await?;
        world.each_has_its_own(&accounts, 6, DEFAULT_TIMEOUT).await?;
        let before = world.traffic_continues(20).await?;
        let tainted = world.authorities().await?.active("x509").context("an X.509 authority signs")?;
        let (leader, _) = until("one replica leads", DEFAULT_TIMEOUT, async || world.leader().await).await?;
        let cut_off = world.product(OPERATOR).await?.into_iter().find(|pod| pod.name_any() != leader);
        let cut_off = cut_off.context("a replica that does not lead")?;

        let mut fault = faults.begin(&["between", "--pod", &address(&cut_off)?]).await?;
        fault.send("answer 500").await?;
        fault.send("cut").await?;
        let request = format!("{AUTHORITY}, taint: {{maxDelay: 10m}}, tainted: ['{tainted}']");
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        until("another authority signs", DEFAULT_TIMEOUT, async || {
            Ok(world.authorities().await?.active("x509").filter(|active| *active != tainted))
        })
        .await?;
        // Longer than all others need.
        hold_for(Duration::from_secs(30)).await;
        let meanwhile = world.authorities().await?;
        ensure!(meanwhile.ids("tainted").contains(&tainted), "it left while a replica may sign with it: {meanwhile:?}");
        fault.end().await?;
        until("it has left the bundle", DEFAULT_TIMEOUT * 2, async || {
            Ok((!world.authorities().await?.all().contains(&tainted)).then_some(()))
        })
        .await?;
        let during = world.both_renewed(before, DEFAULT_TIMEOUT).await?;
        let during = world.traffic_since(during, 200, DEFAULT_TIMEOUT).await?.since(before);
        report_counts("a replica is cut off from the API server during a taint", &during.counts(&json!({})))
    })
    .await;
}

/// R25, R53: the switch was written when the successor was prepared, so that it happens without a leader, and what is issued
/// then is of the successor.
#[tokio::test]
#[ignore = "soak"]
async fn soak_a_switch_happens_in_time_while_the_api_server_is_gone() {
    faulty("switch-api-gone", async |world, faults| {
        let authority = "bundleRefreshHint: 1s, x509: {svidTTL: 20s, caTTL: 100s}, jwt: {svidTTL: 20s}, \
                         rotation: {maxDelay: 5s}";
        world.cluster.apply(&world.trust_domain_yaml(authority)).await?;
        world.traffic("50ms").await?;
        let before = world.traffic_continues(20).await?;
        let (then, at) = next_switch(world).await?;
        ensure!(then.ids("prepared").len() == 2, "{then:?}");
        let (signer, _) = issuers(world).await?.pop().context("the client has a leaf")?;
        let fault = faults.begin(&["stop", "kube-apiserver"]).await?;
        // Leaves are renewed in half of their life.
        let span =
            Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default() + Duration::from_secs(15);
        hold_for(span).await;
        let ended = Timestamp::now();
        fault.end().await?;
        let during = world.traffic_since(before, 10 * span.as_secs(), DEFAULT_TIMEOUT).await?.since(before);
        let by_successor = issuers(world).await?.into_iter().any(|(issuer, issued)| issuer != signer && issued < ended);
        ensure!(by_successor, "nothing was issued by the successor while the API server was gone");
        until("the status has other authorities as active", DEFAULT_TIMEOUT, async || {
            let now = world.authorities().await?.ids("active");
            Ok((!now.is_empty() && now.is_disjoint(&then.ids("active"))).then_some(()))
        })
        .await?;
        report_counts("API server gone over a switch", &during.counts(&json!({ "seconds": span.as_secs() })))
    })
    .await;
}

/// R53: an agent that is cut off over a switch has known the successor since long. What it has is accepted by those who have
/// what is new, and the other way round, and afterwards it gets what it missed.
#[tokio::test]
#[ignore = "soak"]
async fn soak_an_agent_that_is_offline_over_a_switch_loses_nothing() {
    faulty("offline", async |world, faults| {
        let authority = "bundleRefreshHint: 1s, x509: {svidTTL: 120s, caTTL: 260s}, jwt: {svidTTL: 60s}, \
                         rotation: {maxDelay: 5s}";
        world.cluster.apply(&world.trust_domain_yaml(authority)).await?;
        world.traffic("50ms").await?;
        world.cluster.apply(&world.identity_yaml("client", "x509: {ttl: 20s}")).await?;
        let server = address(&world.pods().get("server").await?)?;
        let issuer = world.cluster.control_plane().await?.issuer;
        let (then, at) = next_switch(world).await?;
        let (signer, _) = issuers(world).await?.pop().context("the client has a leaf")?;
        hold_for(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default().saturating_sub(LEAD))
            .await;
        let before = world.traffic_continues(20).await?;
        let fault = faults.begin(&["block", "--to", &issuer, "--pod", &server]).await?;
        until("the client has a leaf of the successor", DEFAULT_TIMEOUT, async || {
            Ok(issuers(world).await?.pop().filter(|(issuer, _)| *issuer != signer).map(drop))
        })
        .await?;
        let offline = world.traffic_since(world.traffic_continues(1).await?, 200, DEFAULT_TIMEOUT).await?;
        ensure!(offline.peer_serials == before.peer_serials, "the server was not offline: {offline:?}");
        fault.end().await?;
        rotated(world, &then).await?;
        let after = world.both_renewed(Sums { serials: 0, ..offline }, DEFAULT_TIMEOUT * 2).await?;
        all_acknowledged(world).await?;
        report_counts("an agent is offline over a switch", &after.since(before).counts(&json!({})))
    })
    .await;
}

/// R53: agents that are cut off when a rotation is requested are awaited, and then get what is new before it signs.
#[tokio::test]
#[ignore = "soak"]
async fn soak_agents_that_are_offline_when_a_rotation_is_requested_are_awaited() {
    faulty("offline-asked", async |world, faults| {
        world.cluster.apply(&world.trust_domain_yaml(&format!("{AUTHORITY}, rotation: {{maxDelay: 1h}}"))).await?;
        world.traffic("50ms").await?;
        let before = world.traffic_continues(20).await?;
        let then = world.authorities().await?;
        let issuer = world.cluster.control_plane().await?.issuer;
        let server = address(&world.pods().get("server").await?)?;
        let fault = faults.begin(&["block", "--to", &issuer, "--pod", &server]).await?;
        request_rotation(world, "1h").await?;
        awaits(world, "server").await?;
        // Longer than a rotation takes.
        hold_for(Duration::from_secs(60)).await;
        let meanwhile = world.authorities().await?;
        ensure!(meanwhile.ids("active") == then.ids("active"), "switched without an acknowledgement: {meanwhile:?}");
        fault.end().await?;
        rotated(world, &then).await?;
        let after = world.traffic_since(world.traffic_continues(1).await?, 200, DEFAULT_TIMEOUT).await?;
        report_counts("an agent is offline when a rotation is requested", &after.since(before).counts(&json!({})))
    })
    .await;
}

/// R25: replicas go on with what they hold, the TrustDomain says what is wrong, and once the Secret is as it was a
/// rotation goes on.
#[tokio::test]
#[ignore = "soak"]
async fn soak_a_journal_that_was_edited_by_hand_stops_rotations_and_no_call() {
    faulty("edited", async |world, _| {
        let authority = "bundleRefreshHint: 1s, x509: {svidTTL: 20s}";
        world.cluster.apply(&world.trust_domain_yaml(authority)).await?;
        world.traffic("50ms").await?;
        let before = world.traffic_continues(20).await?;
        let secrets = world.cluster.api::<Secret>(AUTHORITIES);
        let name = trust_domain_secret(&world.trust_domain);
        let whole = secrets.get(&name).await?.data.unwrap_or_default();
        let edited: BTreeMap<_, _> = whole
            .iter()
            .map(|(key, value)| (key.clone(), ByteString(value.0.iter().rev().copied().collect())))
            .collect();
        let put = async |data: &BTreeMap<String, ByteString>| {
            secrets.patch(&name, &PatchParams::default(), &Patch::Merge(json!({ "data": data }))).await
        };
        put(&edited).await?;
        until("the TrustDomain says that its journal is damaged", DEFAULT_TIMEOUT, async || {
            let found = world.trust_domain_condition("Stalled").await?;
            Ok(found.filter(|(status, _)| status == "True"))
        })
        .await?;
        let edited = world.both_renewed(before, DEFAULT_TIMEOUT).await?;
        put(&whole).await?;
        until("the TrustDomain is ready", DEFAULT_TIMEOUT, async || {
            Ok(world.trust_domain_condition("Ready").await?.filter(|(status, _)| status == "True"))
        })
        .await?;
        let then = world.authorities().await?;
        let request = format!("{authority}, rotation: {{maxDelay: 20s, after: '{}'}}", Timestamp::now());
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        rotated(world, &then).await?;
        let during = world.both_renewed(edited, DEFAULT_TIMEOUT * 2).await?.since(before);
        report_counts("a journal is edited by hand", &during.counts(&json!({})))
    })
    .await;
}

/// R25, R53: a replica whose watch of Secrets is dead, so that it publishes no successor, delays a rotation and breaks none.
#[tokio::test]
#[ignore = "soak"]
async fn soak_a_replica_that_misses_the_event_of_a_journal_delays_a_rotation_and_disturbs_no_call() {
    faulty("missed-event", async |world, faults| {
        two_replicas(world).await?;
        let authority = |after: &str| format!("{AUTHORITY}, x509: {{svidTTL: 20s}}, rotation: {{maxDelay: 1h{after}}}");
        world.cluster.apply(&world.trust_domain_yaml(&authority(""))).await?;
        world.traffic("50ms").await?;
        let before = world.traffic_continues(20).await?;
        let then = world.authorities().await?;
        let (leader, _) = until("one replica leads", DEFAULT_TIMEOUT, async || world.leader().await).await?;
        let other = world.product(OPERATOR).await?.into_iter().find(|pod| pod.name_any() != leader);
        let other = address(&other.context("a replica that does not lead")?)?;
        let mut fault = faults.begin(&["between", "--pod", &other]).await?;
        fault.send("mute secrets").await?;
        fault.send("cut").await?;
        let request = authority(&format!(", after: '{}'", Timestamp::now()));
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        until("a replica is awaited", DEFAULT_TIMEOUT, async || {
            let found = world.trust_domain_condition("BundleAcknowledged").await?;
            Ok(found.filter(|(status, _)| status == "False"))
        })
        .await?;
        // Longer than a rotation takes.
        hold_for(Duration::from_secs(60)).await;
        let during = world.both_renewed(before, DEFAULT_TIMEOUT).await?;
        let meanwhile = world.authorities().await?;
        ensure!(meanwhile.ids("active") == then.ids("active"), "switched without a replica: {meanwhile:?}");
        let seen = fault.send("pass").await?;
        ensure!(seen["muted"].as_u64() > Some(0), "no answer was muted: {seen}");
        fault.send("cut").await?;
        rotated(world, &then).await?;
        all_acknowledged(world).await?;
        fault.end().await?;
        let during = world.traffic_since(during, 200, DEFAULT_TIMEOUT).await?.since(before);
        report_counts("a replica misses the events of Secrets", &during.counts(&json!({})))
    })
    .await;
}

/// R53, R71: all processes of a pod stop, as on a machine that is suspended, over two rotations and the end of its leaf; it
/// wakes with nothing that is valid and gets all that is new.
#[tokio::test]
#[ignore = "soak"]
async fn soak_a_pod_that_slept_over_two_rotations_gets_what_is_new() {
    faulty("suspended", async |world, faults| {
        let authority =
            |after: &str| format!("{AUTHORITY}, x509: {{svidTTL: 40s}}, rotation: {{maxDelay: 10s{after}}}");
        world.cluster.apply(&world.trust_domain_yaml(&authority(""))).await?;
        world.traffic("50ms").await?;
        world.new_pod("sleeper").await?;
        let before = world.traffic_continues(20).await?;
        let old = world.credential("sleeper").await?;
        let trusted = world.trusted_authorities("sleeper").await?;
        let application = pause(world, faults, "sleeper", APP).await?;
        let agent = pause(world, faults, "sleeper", AGENT).await?;
        for _ in 0..2 {
            let then = world.authorities().await?;
            let request = authority(&format!(", after: '{}'", Timestamp::now()));
            world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
            rotated(world, &then).await?;
        }
        agent.end().await?;
        application.end().await?;
        let new = until("the pod has a leaf of an authority that it did not know", DEFAULT_TIMEOUT, async || {
            Ok(Some(world.credential("sleeper").await?).filter(|new| !trusted.contains(&new.authority)))
        })
        .await?;
        ensure!(new.id == old.id, "another identity: {}", new.id);
        let during = world.both_renewed(before, DEFAULT_TIMEOUT).await?.since(before);
        report_counts("a pod sleeps over two rotations", &during.counts(&json!({})))
    })
    .await;
}

/// Stops the processes of a pod's container.
async fn pause(world: &World, faults: &Faults, pod: &str, container: &str) -> Result<Fault> {
    let found = world.pods().get(pod).await?;
    let id = running(&found, container).with_context(|| format!("{container} of {pod} does not run"))?;
    faults.begin(&["pause", "--container", &id]).await
}

async fn two_replicas(world: &World) -> Result<()> {
    if world.replicas(OPERATOR).await? < 2 {
        world.scale(OPERATOR, 2).await?;
    }
    Ok(())
}

/// Asks for other authorities than those of now.
async fn request_rotation(world: &World, max_delay: &str) -> Result<()> {
    let request = format!("{AUTHORITY}, rotation: {{maxDelay: {max_delay}, after: '{}'}}", Timestamp::now());
    world.cluster.apply(&world.trust_domain_yaml(&request)).await.map(drop)
}

/// Waits until other authorities of both kinds sign than `then`.
async fn rotated(world: &World, then: &Authorities) -> Result<Authorities> {
    until("other authorities of both kinds sign", DEFAULT_TIMEOUT, async || {
        let now = world.authorities().await?;
        let active = now.ids("active");
        Ok((active.len() == 2 && active.is_disjoint(&then.ids("active"))).then_some(now))
    })
    .await
}

/// Waits until the condition says that a pod has not acknowledged the bundle.
async fn awaits(world: &World, pod: &str) -> Result<()> {
    until(&format!("the condition names {pod}"), DEFAULT_TIMEOUT, async || {
        let found = world.trust_domain_condition("BundleAcknowledged").await?;
        Ok(found.filter(|(status, message)| status == "False" && message.contains(pod)).map(drop))
    })
    .await
}

/// Waits until every workload has acknowledged what every replica publishes.
async fn all_acknowledged(world: &World) -> Result<()> {
    until("all have acknowledged the bundle", DEFAULT_TIMEOUT * 2, async || {
        let found = world.trust_domain_condition("BundleAcknowledged").await?;
        Ok(found.filter(|(status, _)| status == "True").map(drop))
    })
    .await
}

/// The authorities of now, and the time of the next switch, which is not near.
async fn next_switch(world: &World) -> Result<(Authorities, Timestamp)> {
    until("a switch is planned", DEFAULT_TIMEOUT, async || {
        let at = world.trust_domain_status().await?["nextSwitch"].as_str().and_then(|text| text.parse().ok());
        let is_ahead = |at: &Timestamp| at.duration_since(Timestamp::now()).as_secs() > 15;
        Ok(Some(world.authorities().await?).zip(at.filter(is_ahead)))
    })
    .await
}

/// The issuers of the client's leaves, each with the time at which the leaf was issued.
async fn issuers(world: &World) -> Result<Vec<(String, Timestamp)>> {
    let said = world.app_output("client").await?;
    let leaf = |line: &Value| {
        let not_after: Timestamp = line["not_after"].as_str()?.parse().ok()?;
        Some((line["issuer"].as_str()?.to_owned(), not_after - SWITCHED_LIFE))
    };
    Ok(said.iter().filter(|line| is_event(line, "handshake")).filter_map(leaf).collect())
}
