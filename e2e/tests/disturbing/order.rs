//! Objects may be applied in any order.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    apply::documents,
    faults::exclusively,
    fixture::PodSpec,
    pods::{is_event, restarts},
    scenario::scenario_without_namespace,
    wait::{DEFAULT_TIMEOUT, until},
};
use futures::{StreamExt as _, stream};
use kube::{ResourceExt as _, api::ListParams};

/// The number of runs for each order.
const TIMES: usize = 25;
/// The number of concurrent runs.
const ABREAST: usize = 5;

/// Namespace, TrustDomain, WorkloadIdentity, Deployment.
#[tokio::test]
async fn authority_first_every_pod_gets_its_identity_without_a_restart() {
    repeat(async |world| {
        world.cluster.apply(&world.namespace_yaml()).await?;
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("ordered", "")).await?;
        world.cluster.apply(&deployment(world)).await?;
        has_identity(world).await
    })
    .await;
}

/// The file in reverse order, applied like a pipeline that retries what was refused. An object cannot be in a namespace
/// that does not exist, so the first round creates only the TrustDomain, which has no namespace, and the namespace; the
/// second creates the Deployment before its WorkloadIdentity.
#[tokio::test]
async fn applied_backwards_and_again_every_pod_gets_its_identity_without_a_restart() {
    repeat(async |world| {
        let file = [
            world.namespace_yaml(),
            world.trust_domain_yaml(""),
            world.identity_yaml("ordered", ""),
            deployment(world),
        ];
        let mut backwards = documents(&file.concat())?;
        backwards.reverse();
        let mut refused = 0;
        while !backwards.is_empty() {
            let mut again = Vec::new();
            for object in backwards {
                if let Err(error) = world.cluster.apply_object(&object).await {
                    let namespace_is_missing =
                        matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404);
                    ensure!(namespace_is_missing, "{error:#}");
                    refused += 1;
                    again.push(object);
                }
            }
            backwards = again;
        }
        ensure!(refused >= 3, "nothing was refused: {refused}");
        has_identity(world).await
    })
    .await;
}

/// The namespace exists; the pod is created before its WorkloadIdentity.
#[tokio::test]
async fn pods_first_every_pod_gets_its_identity_without_a_restart() {
    repeat(async |world| {
        world.cluster.apply(&world.namespace_yaml()).await?;
        world.cluster.apply(&deployment(world)).await?;
        pod(world).await?;
        world.cluster.apply(&world.identity_yaml("ordered", "")).await?;
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        has_identity(world).await
    })
    .await;
}

async fn repeat(once: impl AsyncFn(&World) -> Result<()>) {
    let all =
        stream::iter(0..TIMES).for_each_concurrent(ABREAST, async |_| scenario_without_namespace("order", &once).await);
    exclusively(all).await;
}

fn deployment(world: &World) -> String {
    PodSpec::demo("ordered", &["first-instruction"]).deployment(&world.namespace, 1)
}

/// The name of the Deployment's pod.
async fn pod(world: &World) -> Result<String> {
    until("the Deployment has a pod", DEFAULT_TIMEOUT, async || {
        let pods = world.pods().list(&ListParams::default().labels("app=ordered")).await?;
        Ok(pods.items.first().map(kube::ResourceExt::name_any))
    })
    .await
}

async fn has_identity(world: &World) -> Result<()> {
    let name = pod(world).await?;
    let ready = world.ready(&name).await?;
    let first = world
        .wait_for_output(&name, "what was there", DEFAULT_TIMEOUT, |line| is_event(line, "first-instruction"))
        .await?;
    ensure!(first["id"] == world.id("ordered"), "{} has {first}", ready.name_any());
    ensure!(restarts(&ready) == 0, "{name} was restarted");
    Ok(())
}
