//! One watch of the operator stalls while everything else works: its last state is not used for issuing indefinitely.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_contract::network::port;
use countersign_e2e::{
    World,
    faults::{faulty, hold_for, report_counts},
    issuer::IssuerEndpoint,
    wait::{DEFAULT_TIMEOUT, until},
};
use serde_json::json;
use tonic::Code;

/// The maximum age of the operator's view.
const BOUND: Duration = Duration::from_secs(15 * 60);

/// R25: on every replica the connections stay open without any data; all other watches work.
#[tokio::test]
#[ignore = "soak"]
async fn soak_with_the_watch_of_pods_alone_dead_nothing_is_issued_after_the_bound() {
    faulty("pods-watch-dead", async |world, faults| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("account", "")).await?;
        let pod = world.never_runs("handmade", "account").await?;
        accepted_by_all(world, &pod).await?;

        let addresses = world.operators().await?;
        let mut arguments = vec!["between"];
        for address in &addresses {
            arguments.extend(["--pod", address]);
        }
        let mut fault = faults.begin(&arguments).await?;
        fault.send("mute pods").await?;
        fault.send("cut").await?;
        hold_for(BOUND - Duration::from_secs(120)).await;
        accepted_by_all(world, &pod).await.context("within the bound")?;

        let mut refusals = Vec::new();
        for address in &addresses {
            let refused = until("the replica refuses", Duration::from_secs(240), async || {
                Ok(refusal(world, address, &pod).await.ok())
            });
            let (code, message) = refused.await?;
            ensure!(code == Code::Unavailable && message.contains("view of pods was last confirmed"), "{message}");
            refusals.push(message);
        }
        let seen = fault.send("pass").await?;
        fault.send("cut").await?;
        accepted_by_all(world, &pod).await.context("once the watch is alive again")?;
        fault.end().await?;
        report_counts("watch of pods dead", &json!({ "muted": seen["muted"], "refusals": refusals }))
    })
    .await;
}

/// Each replica opens a session for a token of the pod.
async fn accepted_by_all(world: &World, pod: &(String, String)) -> Result<()> {
    for address in world.operators().await? {
        until("the replica opens a session", DEFAULT_TIMEOUT, async || {
            let token = token(world, pod).await?;
            let state = at(world, &address).await?.connect().await?.open(&token).await?.state().await?;
            Ok((!state.identities.is_empty()).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn refusal(world: &World, address: &str, pod: &(String, String)) -> Result<(Code, String)> {
    let token = token(world, pod).await?;
    at(world, address).await?.connect().await?.refusal(&token).await
}

/// The endpoint of one replica, without the Service, which includes only replicas that can issue.
async fn at(world: &World, address: &str) -> Result<IssuerEndpoint> {
    let mut endpoint = IssuerEndpoint::of(&world.cluster).await?;
    endpoint.address = format!("{address}:{}", port::ISSUER);
    Ok(endpoint)
}

async fn token(world: &World, pod: &(String, String)) -> Result<String> {
    let audience = world.cluster.control_plane().await?.audience;
    world.service_account_token("account", &[&audience], Some(pod)).await
}
