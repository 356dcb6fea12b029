//! The operator is rolled out twice under its agents without affecting any workload.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    cluster::SYSTEM,
    faults::{alone, report_counts},
    fixture::PodSpec,
    pods::APP,
    replicas::OPERATOR,
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt as _,
    api::{LogParams, Patch, PatchParams},
};
use serde_json::{Value, json};

/// Pods that renew, besides the two with traffic: as many as fit on a node with two cores, because each agent requests a
/// tenth of one.
const PODS: u32 = 10;
/// The life of an X509-SVID, seconds.
const LIFE: i64 = 20;
/// Handshakes between the roll-outs, and after the last: more than happen in the lifetime of an SVID.
const HANDSHAKES: u64 = 400;

/// R25, R71: streams move without a failed issue.
#[tokio::test]
async fn two_roll_outs_of_the_operator_bring_no_identity_into_its_last_quarter() {
    alone("roll-out", async |world| {
        if world.replicas(OPERATOR).await? < 2 {
            world.scale(OPERATOR, 2).await?;
        }
        world.cluster.apply(&world.trust_domain_yaml(&format!("x509: {{svidTTL: {LIFE}s}}"))).await?;
        let watching = PodSpec::demo("watching", &["watch", "--updates", "100000"]);
        world.cluster.apply(&world.identity_yaml("watching", "")).await?;
        world.cluster.apply(&watching.deployment(&world.namespace, PODS)).await?;
        world.traffic("100ms").await?;
        let pods = world.ready_pods("watching", PODS as usize).await?;

        let mut then = world.traffic_continues(HANDSHAKES).await?;
        // A replica may not know a new pod yet, so earlier log lines of the agents are not counted.
        let (moved_before, failed_before) = streams_ended(world, &pods).await?;
        for _ in 0..2 {
            roll_out(world).await?;
            then = world.traffic_since(then, HANDSHAKES, DEFAULT_TIMEOUT * 2).await?;
        }

        let (mut updates, mut shortest) = (0, SignedDuration::MAX);
        for pod in &pods {
            let margins = margins(world, &pod.name_any()).await?;
            updates += margins.len();
            shortest = margins.into_iter().min().unwrap_or(shortest).min(shortest);
        }
        let (moved, failed) = streams_ended(world, &pods).await?;
        let (moved, failed) = (moved - moved_before, failed - failed_before);
        report_counts(
            "roll_out",
            &then.counts(&json!({
                "roll_outs": 2, "pods": PODS, "renewals_of_pods": updates,
                "shortest_life_left_at_renewal_seconds": shortest.as_secs_f64(),
                "streams_moved": moved, "streams_failed": failed,
            })),
        )?;
        ensure!(then.failed == 0, "{then:?}");
        ensure!(shortest >= SignedDuration::from_secs(LIFE / 4), "an SVID had {shortest:?} left of {LIFE} s");
        // Each roll-out replaces all replicas, so each stream moves at least once, and finds another replica at the first
        // attempt.
        ensure!(moved >= 2 * PODS as usize, "{moved} streams moved of {PODS} pods in two roll-outs; {failed} failed");
        ensure!(failed == 0, "{failed} streams broke instead of moving, or found no replica; {moved} moved");
        Ok(())
    })
    .await;
}

/// How many streams of these pods' agents were moved by the issuer, and how many failed.
async fn streams_ended(world: &World, pods: &[Pod]) -> Result<(usize, usize)> {
    let (mut moved, mut failed) = (0, 0);
    for name in pods.iter().map(|pod| pod.name_any()) {
        moved += world.count_in_agent_log(&name, "asked to come back on another stream").await?;
        failed += world.count_in_agent_log(&name, "no stream to the issuer").await?;
    }
    Ok((moved, failed))
}

/// As `kubectl rollout restart`, and waits until no old pod is left.
async fn roll_out(world: &World) -> Result<()> {
    let old: Vec<_> = world.product(OPERATOR).await?.iter().map(|pod| pod.name_any()).collect();
    let annotations = json!({ "kubectl.kubernetes.io/restartedAt": Timestamp::now().to_string() });
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } });
    let deployments = world.cluster.api::<Deployment>(SYSTEM);
    deployments.patch(OPERATOR, &PatchParams::default(), &Patch::Merge(patch)).await?;
    let pods = world.cluster.api::<Pod>(SYSTEM);
    until("the old replicas are gone", DEFAULT_TIMEOUT * 2, async || {
        for name in &old {
            if pods.get_opt(name).await?.is_some() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    world.settled().await
}

/// The remaining lifetime of each SVID when the next one arrived, for all that the pod's application saw, and of the last
/// one now.
async fn margins(world: &World, pod: &str) -> Result<Vec<SignedDuration>> {
    let what = LogParams { container: Some(APP.to_owned()), timestamps: true, ..LogParams::default() };
    let now = Timestamp::now();
    let text = world.pods().logs(pod, &what).await.with_context(|| format!("logs of {pod}"))?;
    let mut seen: Vec<(Timestamp, Timestamp)> = Vec::new();
    for line in text.lines() {
        let Some((at, said)) = line.split_once(' ') else { continue };
        let Ok(said) = serde_json::from_str::<Value>(said) else { continue };
        if said["event"] == "x509" {
            let not_after = said["not_after"].as_str().context("an update without an end")?;
            seen.push((at.parse().context("a line's time")?, not_after.parse().context("an end")?));
        }
    }
    ensure!(seen.len() > 2, "{pod} has seen {} updates", seen.len());
    let next = seen.iter().skip(1).map(|(at, _)| *at).chain([now]);
    Ok(seen.iter().zip(next).map(|((_, not_after), next)| not_after.duration_since(next)).collect())
}

/// The traffic's time at its pace is well within the timeout.
const _: () = assert!(Duration::from_millis(100).as_millis() as u64 * HANDSHAKES < 90_000);
