//! The examples of `countersign-verify` as pods.

use anyhow::{Result, ensure};

use crate::{
    World,
    fixture::{Image, PodSpec},
    pods::APP,
    replicas::address,
    wait::{DEFAULT_TIMEOUT, until},
};

const SERVICE: &str = "service";

/// Runs the service, with the account of its name, which accepts of the foreign trust domain what these patterns admit. Returns its
/// address once it listens.
///
/// # Errors
/// It does not listen in time.
pub async fn serve(world: &World, foreign: &str, patterns: &[&str]) -> Result<String> {
    let arguments = [&["0.0.0.0:8443", foreign], patterns].concat();
    let pod = PodSpec { image: Image::VerifyService, ..PodSpec::demo(SERVICE, &arguments) };
    world.cluster.apply(&pod.pod(&world.namespace)).await?;
    let pod = world.ready(SERVICE).await?;
    until("the service listens", DEFAULT_TIMEOUT, async || Ok(log(world).await?.contains("listening").then_some(())))
        .await?;
    Ok(format!("{}:8443", address(&pod)?))
}

/// What the service has logged.
///
/// # Errors
/// The log cannot be read.
pub async fn log(world: &World) -> Result<String> {
    world.logs(SERVICE, APP).await
}

/// Runs a client until it has ended, and returns what it said.
///
/// # Errors
/// It does not end in time, or said nothing.
pub async fn run(world: &World, client: &PodSpec<'_>) -> Result<String> {
    world.cluster.apply(&client.pod(&world.namespace)).await?;
    let said = until(&format!("{} has ended", client.name), DEFAULT_TIMEOUT, async || {
        let pod = world.cluster.api::<k8s_openapi::api::core::v1::Pod>(&world.namespace).get(client.name).await?;
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        if phase != "Succeeded" && phase != "Failed" {
            return Ok(None);
        }
        world.logs(client.name, APP).await.map(Some)
    })
    .await?;
    ensure!(!said.trim().is_empty(), "{} said nothing", client.name);
    Ok(said)
}
