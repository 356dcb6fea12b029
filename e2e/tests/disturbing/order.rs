//! Nothing depends on the order in which objects are applied.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    apply::documents,
    faults::exclusively,
    fixture::PodSpec,
    pods::{is_event, restarts},
    scenario::scenario_without_namespace,
    until::{PATIENCE, until},
};
use futures::{StreamExt as _, stream};
use kube::{ResourceExt as _, api::ListParams};

/// In each order.
const TIMES: usize = 25;
/// At the same time.
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

/// The file from its end to its beginning, as a pipeline applies it that tries again what was refused: nothing can be in a
/// namespace that does not exist, so the first round makes but the TrustDomain, which has no namespace, and the namespace; the
/// second makes the Deployment before anything says who its pods are.
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

/// The namespace is there; the pod is before anything says who it is.
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
    let all = stream::iter(0..TIMES)
        .for_each_concurrent(ABREAST, async |_| scenario_without_namespace("order", &once).await);
    exclusively(all).await;
}

fn deployment(world: &World) -> String {
    PodSpec::demo("ordered", &["first-instruction"]).deployment(&world.namespace, 1)
}

/// The name of the Deployment's pod.
async fn pod(world: &World) -> Result<String> {
    until("the Deployment has a pod", PATIENCE, async || {
        let pods = world.pods().list(&ListParams::default().labels("app=ordered")).await?;
        Ok(pods.items.first().map(kube::ResourceExt::name_any))
    })
    .await
}

async fn has_identity(world: &World) -> Result<()> {
    let name = pod(world).await?;
    let ready = world.ready(&name).await?;
    let first = world.says(&name, "what was there", PATIENCE, |line| is_event(line, "first-instruction")).await?;
    ensure!(first["id"] == world.id("ordered"), "{} has {first}", ready.name_any());
    ensure!(restarts(&ready) == 0, "{name} was restarted");
    Ok(())
}
