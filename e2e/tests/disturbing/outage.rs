//! Without the control plane existing identities remain usable; only new ones need it.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    faults::{alone, faulty},
    fixture::{Image, PodSpec},
    pods::is_event,
    replicas::{OPERATOR, address},
    wait::{DEFAULT_TIMEOUT, until},
};

/// R27: without an operator, existing identities keep working, and a new pod waits and reports why; it starts without
/// intervention when the operator is back.
#[tokio::test]
async fn without_an_operator_identities_serve_on_and_new_pods_wait() {
    alone("outage", async |world| {
        let serve = PodSpec::demo("server", &["serve", "--listen", "0.0.0.0:8443", "--allow", &world.id("client")]);
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        for account in ["server", "client", "late"] {
            world.cluster.apply(&world.identity_yaml(account, "")).await?;
        }
        world.cluster.apply(&serve.pod(&world.namespace)).await?;
        let server = world.ready("server").await?;
        let target = format!("{}:8443", server.status.and_then(|status| status.pod_ip).expect("an address"));
        let call = ["call", "--target", &target, "--expect", &world.id("server"), "--every", "50ms"];
        world.cluster.apply(&PodSpec::demo("client", &call).pod(&world.namespace)).await?;
        world.ready("client").await?;

        let original = world.replicas(OPERATOR).await?;
        world.scale(OPERATOR, 0).await?;
        let outcome = without_operator(world).await;
        world.scale(OPERATOR, original).await?;
        outcome?;
        let credential =
            until("the late one has its identity", DEFAULT_TIMEOUT, async || world.credential("late").await.map(Some))
                .await?;
        assert_eq!(credential.id, world.id("late"));
        no_failures(world, 1).await
    })
    .await;
}

/// R24, R26: with the network to the operator cut, and then the operator gone as well, proofs are made and verified on, by the WIT-SVIDs and
/// the bundles that agents have, for as long as these live; then calls are refused, and the operator that is back brings new ones.
#[tokio::test]
async fn without_an_operator_requests_are_proven_and_verified_on() {
    faulty("proofs-outage", async |world, faults| {
        world.cluster.apply(&world.trust_domain_yaml("wit: {svidTTL: 1m}")).await?;
        for account in ["service", "caller"] {
            world.cluster.apply(&world.identity_yaml(account, "wit: {}")).await?;
        }
        let serve = format!(
            "serve --listen 0.0.0.0:8080 --accept wpt --accept http-signature --origin http://{}:8080 --caller {}",
            world.host("service"),
            world.id("caller"),
        );
        world.hop("service", &[8080], &serve).await?;
        let pod = PodSpec { image: Image::Hop, ..PodSpec::demo("caller", &["hold"]) };
        world.cluster.apply(&pod.pod(&world.namespace)).await?;
        world.ready("caller").await?;
        world.listens("service").await?;
        let call = |proof: &str| {
            format!("--next http://{}:8080/ --prove {proof} --expect {}", world.host("service"), world.id("service"))
        };
        world.call_until_answered("caller", &call("wpt")).await?;

        let issuer = world.cluster.control_plane().await?.issuer;
        let pods = [address(&world.pods().get("service").await?)?, address(&world.pods().get("caller").await?)?];
        let cut = ["block", "--to", &issuer, "--pod", &pods[0], "--pod", &pods[1]];
        let fault = faults.begin(&cut).await?;
        let done = world.calls("caller", 100, &call("wpt")).await?;
        let original = world.replicas(OPERATOR).await?;
        world.scale(OPERATOR, 0).await?;
        let outcome = async {
            ensure!(done["calls"] == 100 && done["failed"] == 0, "with the network cut: {done}");
            for proof in ["wpt", "http-signature"] {
                let done = world.calls("caller", 200, &call(proof)).await?;
                ensure!(done["calls"] == 200 && done["failed"] == 0, "{proof}: {done}");
            }
            until("the WIT-SVID has ended, and no request is proven", DEFAULT_TIMEOUT, async || {
                let answer = world.call("caller", &call("wpt")).await?;
                Ok(answer["error"].as_str().filter(|error| error.contains("no WIT-SVID now")).map(drop))
            })
            .await
        };
        let outcome = outcome.await;
        world.scale(OPERATOR, original).await?;
        fault.end().await?;
        outcome?;
        world.call_until_answered("caller", &call("wpt")).await.map(drop)
    })
    .await;
}

async fn without_operator(world: &World) -> Result<()> {
    let late = PodSpec { annotations: "countersign.dev/hold: 'false'", ..PodSpec::hold("late") };
    world.cluster.apply(&late.pod(&world.namespace)).await?;
    world.ready("late").await?;
    until("the late one is told to wait", DEFAULT_TIMEOUT, async || {
        let said = world.demo("late", &["workload-api"]).await?;
        let said = countersign_e2e::pods::lines(&String::from_utf8(said)?).pop().unwrap_or_default();
        ensure!(said["code"] == "Unavailable", "it is told {said}");
        Ok(Some(()))
    })
    .await?;
    no_failures(world, 100).await
}

/// Waits for `more` further handshakes; no call may have failed so far.
async fn no_failures(world: &World, more: u64) -> Result<()> {
    let done = async || {
        let said = world.app_output("client").await?;
        let sums = said.iter().rev().find(|line| is_event(line, "summary")).cloned().unwrap_or_default();
        ensure!(sums["failed"].as_u64().unwrap_or(0) == 0, "calls failed: {sums}");
        Ok(sums["handshakes"].as_u64())
    };
    let before = done().await?.unwrap_or(0);
    until(&format!("{more} more handshakes are done"), DEFAULT_TIMEOUT, async || {
        Ok(done().await?.filter(|now| *now >= before + more).map(drop))
    })
    .await
}
