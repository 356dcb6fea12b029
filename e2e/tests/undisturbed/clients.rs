//! R72: unmodified clients of the Workload API fetch and watch inside pods, across renewals.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::Result;
use countersign_e2e::{
    World,
    fixture::{AUDIENCE, Image, PodSpec},
    pods::is_event,
    scenario,
    wait::DEFAULT_TIMEOUT,
};
use serde_json::Value;

/// The number of X.509 updates that each client watches: the first, and two renewals.
const UPDATES: &str = "3";

#[tokio::test]
async fn the_rust_package_spiffe_fetches_and_watches() {
    scenario("rust", async |world| {
        let client = PodSpec::client("client", Image::Demo, &["watch", "--audience", AUDIENCE, "--updates", UPDATES]);
        serves(world, &client).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn the_python_package_spiffe_fetches_and_watches() {
    scenario("python", async |world| {
        let client = PodSpec::client("client", Image::ClientPython, &["--audience", AUDIENCE, "--updates", UPDATES]);
        serves(world, &client).await.map(drop)
    })
    .await;
}

/// Also over mTLS with a server in Rust.
#[tokio::test]
async fn go_spiffe_fetches_and_watches_and_talks_mtls() {
    scenario("go", async |world| {
        let serve = PodSpec::demo("server", &["serve", "--listen", "0.0.0.0:8443", "--allow", &world.id("client")]);
        world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 20s}")).await?;
        world.cluster.apply(&world.identity_yaml("server", "")).await?;
        world.cluster.apply(&serve.pod(&world.namespace)).await?;
        world.wait_for_output("server", "that it listens", DEFAULT_TIMEOUT, |line| is_event(line, "listening")).await?;
        let server = world.ready("server").await?;
        let address = server.status.and_then(|status| status.pod_ip).expect("a ready pod has an address");

        let target = format!("{address}:8443");
        let expect = world.id("server");
        let args = ["-audience", AUDIENCE, "-updates", UPDATES, "-call", &target, "-expect", &expect];
        let said = serves(world, &PodSpec::client("client", Image::ClientGo, &args)).await?;
        let handshake = said.iter().find(|line| is_event(line, "handshake")).expect("a handshake");
        assert_eq!(handshake["local"], world.id("client"));
        assert_eq!(handshake["peer"], world.id("server"));
        Ok(())
    })
    .await;
}

/// Runs a client to completion, and checks its output, which is returned.
async fn serves(world: &World, client: &PodSpec<'_>) -> Result<Vec<Value>> {
    world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 20s}")).await?;
    world.cluster.apply(&world.identity_yaml("client", &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
    world.cluster.apply(&client.pod(&world.namespace)).await?;
    world.succeeded("client").await?;

    let said = world.app_output("client").await?;
    let of = |event: &str| said.iter().filter(|line| is_event(line, event)).collect::<Vec<_>>();
    let bundle = of("bundle");
    assert_eq!(bundle[0]["trust_domain"], world.trust_domain, "{said:?}");
    assert_eq!(
        (&bundle[0]["x509_authorities"], &bundle[0]["jwt_authorities"]),
        (&2.into(), &2.into()),
        "one signs, one is its spare"
    );
    let jwt = of("jwt");
    assert_eq!(jwt[0]["id"], world.id("client"), "{said:?}");
    assert_eq!(jwt[0]["validated"], world.id("client"));
    assert_eq!(jwt[0]["audience"], serde_json::json!([AUDIENCE]));
    let updates = of("x509");
    assert_eq!(updates.len(), 3, "{said:?}");
    assert!(updates.iter().all(|update| update["id"] == world.id("client")));
    assert_ne!(updates[1]["serial"], updates[2]["serial"], "an update without a renewal");
    Ok(said)
}
