//! The previous build of the operator beside the current one: during an upgrade both read and write the same journals.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    cluster::SYSTEM,
    faults::{alone, report_counts},
    pods::{container_statuses, is_ready},
    replicas::OPERATOR,
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

/// The stored operator (`e2e/operators/`).
const PREVIOUS: &str = "countersign.local/operator:0.1.0";

/// Authorities change every 20 s.
const AUTHORITY: &str = "bundleRefreshHint: 1s, x509: {svidTTL: 15s, caTTL: 40s}, jwt: {svidTTL: 15s}";

/// Until authorities have changed once more, also on a busy machine.
const CHANGE: Duration = Duration::from_secs(90);

/// Handshakes in each phase: more than happen in the lifetime of an SVID.
const HANDSHAKES: u64 = 400;

/// R25, R71: journals that one build writes the other reads and goes on with, and no handshake fails.
#[tokio::test]
async fn the_previous_build_and_this_one_keep_the_same_journals_under_traffic() {
    alone("upgrade", async |world| {
        if world.replicas(OPERATOR).await? < 2 {
            world.scale(OPERATOR, 2).await?;
        }
        world.cluster.apply(&world.trust_domain_yaml(AUTHORITY)).await?;
        world.traffic("50ms").await?;

        let leader = leader(world).await?;
        let replicas = world.product(OPERATOR).await?;
        let other = replicas.iter().map(|pod| pod.name_any()).find(|name| *name != leader);
        let previous = other.context("all replicas lead")?;
        run_previous(world, &previous).await?;
        let at_first = world.authorities().await?.all();
        until("this build changes the authorities", CHANGE, async || changed(world, &at_first).await).await?;
        let mut sums = world.traffic_continues(HANDSHAKES).await?;

        lead(world, &previous).await?;
        let then = world.authorities().await?.all();
        until("the previous build changes the authorities", CHANGE, async || changed(world, &then).await).await?;
        ensure!(self::leader(world).await? == previous, "the previous build no longer leads");
        sums = world.traffic_since(sums, HANDSHAKES, DEFAULT_TIMEOUT * 2).await?;

        let pods = world.cluster.api::<Pod>(SYSTEM);
        pods.delete(&previous, &DeleteParams::default()).await?;
        world.settled().await?;
        let then = world.authorities().await?.all();
        until("this build goes on with the authorities", CHANGE, async || changed(world, &then).await).await?;
        sums = world.traffic_since(sums, HANDSHAKES, DEFAULT_TIMEOUT * 2).await?;
        let active = world.authorities().await?.ids("active");
        ensure!(!active.is_empty() && active.is_disjoint(&at_first), "other authorities sign than at first");
        report_counts("upgrade", &sums.counts(&json!({ "previous": PREVIOUS })))
    })
    .await;
}

async fn leader(world: &World) -> Result<String> {
    until("a replica leads", DEFAULT_TIMEOUT, async || Ok(world.leader().await?.map(|(pod, _)| pod))).await
}

/// Ends other leaders until this replica leads.
async fn lead(world: &World, replica: &str) -> Result<()> {
    let pods = world.cluster.api::<Pod>(SYSTEM);
    until(&format!("{replica} leads"), DEFAULT_TIMEOUT * 2, async || {
        let leader = leader(world).await?;
        if leader == replica {
            return Ok(Some(()));
        }
        if pods.get_opt(&leader).await?.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none()) {
            pods.delete(&leader, &DeleteParams::default()).await?;
        }
        Ok(None)
    })
    .await?;
    world.settled().await
}

/// Replaces a replica's image by that of the previous build, and waits until it runs and is ready.
async fn run_previous(world: &World, replica: &str) -> Result<()> {
    let pods = world.cluster.api::<Pod>(SYSTEM);
    let container = pods.get(replica).await?.spec.context("a pod without spec")?.containers.remove(0).name;
    let patch = json!({ "spec": { "containers": [{ "name": container, "image": PREVIOUS }] } });
    pods.patch(replica, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    until(&format!("{replica} runs the previous build"), DEFAULT_TIMEOUT * 2, async || {
        let pod = pods.get(replica).await?;
        let runs = container_statuses(&pod).any(|status| status.image == PREVIOUS && status.ready);
        Ok((runs && is_ready(&pod)).then_some(()))
    })
    .await
}

/// Whether there are authorities that did not exist then: the leader has written the journal.
async fn changed(world: &World, then: &BTreeSet<String>) -> Result<Option<()>> {
    Ok((!world.authorities().await?.all().is_subset(then)).then_some(()))
}
