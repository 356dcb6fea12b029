//! Services that prove requests to each other, and a neighbour on the way that records, repeats and alters them.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::cell::Cell;

use anyhow::{Result, ensure};
use countersign_e2e::{
    World,
    fixture::{Image, PodSpec},
    pods::is_event,
    proofs::words,
    replicas::address,
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;
use serde_json::json;

const NEIGHBOUR: &str = "neighbour";

/// Applies the trust domain, and an identity with WIT-SVIDs for each account.
async fn identities(world: &World, accounts: &[&str]) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("bundleRefreshHint: 1s, wit: {}")).await?;
    for account in accounts {
        let more = match *account {
            "third" => "wit: {}\njwt: {audiences: [last]}",
            "last" => "wit: {}\nx509: {dnsNames: ['{serviceAccount}.{namespace}.svc']}",
            _ => "wit: {}",
        };
        world.cluster.apply(&world.identity_yaml(account, more)).await?;
    }
    Ok(())
}

async fn caller(world: &World) -> Result<()> {
    let pod = PodSpec { image: Image::Hop, ..PodSpec::demo("caller", &["hold"]) };
    world.cluster.apply(&pod.pod(&world.namespace)).await?;
    world.ready("caller").await.map(drop)
}

/// R12, R78: mTLS, WPT, an HTTP signature with a signed response, and a JWT-SVID over TLS; in Rust by `countersign-verify`, in Go and
/// Python by the agent's socket. R9: everything that went over the wire is sent again by a neighbour, and nothing of it is accepted.
#[tokio::test]
async fn four_services_authenticate_each_other_in_four_ways_and_nothing_recorded_is_accepted_again() {
    scenario("chain", async |world| {
        identities(world, &["caller", "first", "second", "third", "last", NEIGHBOUR]).await?;
        let host = |service: &str| world.host(service);
        let neighbour = format!(
            "neighbour --control 7000 --tcp 7001={} --http 7002={} --http 7003={} --tcp 7004={}",
            format_args!("{}:8443", host("first")),
            format_args!("{}:8080", host("second")),
            format_args!("{}:8080", host("third")),
            format_args!("{}:8443", host("last-pod")),
        );
        world.hop(NEIGHBOUR, &[7001, 7002, 7003], &neighbour).await?;
        // The name in the certificate of `last` is that of the way by the neighbour.
        world.service_of("last", NEIGHBOUR, &[7004]).await?;
        world.service_of("last-pod", "last", &[8443]).await?;
        let id = |account: &str| world.id(account);
        let (origin, next) = (|port: u16| format!("http://{}:{port}", host(NEIGHBOUR)), host("last"));
        let first = format!(
            "serve --listen 0.0.0.0:8443 --accept mtls --caller {} --next {}/orders --prove wpt --expect {}",
            id("caller"),
            origin(7002),
            id("second"),
        );
        world.hop("first", &[8443], &first).await?;
        let (go, python) = (Image::ProofsGo, Image::ProofsPython);
        let next_url = format!("{}/stock", origin(7003));
        let arguments = ["0.0.0.0:8080", &origin(7002), &id("first"), &next_url, &id("third")];
        let second = PodSpec { image: go, ..PodSpec::demo("second", &arguments) };
        let next_url = format!("https://{next}:7004/");
        let arguments = ["8080", &origin(7003), &id("second"), &next_url, "last"];
        let third = PodSpec { image: python, ..PodSpec::demo("third", &arguments) };
        for pod in [&second, &third] {
            world.service_of(pod.name, pod.name, &[8080]).await?;
            world.cluster.apply(&pod.pod(&world.namespace)).await?;
        }
        let last =
            format!("serve --listen 0.0.0.0:8443 --accept jwt-svid --jwt-audience last --caller {}", id("third"));
        let last = PodSpec { image: Image::Hop, ..PodSpec::demo("last", &words(&last)) };
        world.cluster.apply(&last.pod(&world.namespace)).await?;
        caller(world).await?;
        for pod in ["first", "last", NEIGHBOUR] {
            world.listens(pod).await?;
        }
        for pod in ["second", "third"] {
            world.ready(pod).await?;
        }

        let call = format!("--next https://{}:7001/ --prove mtls --expect {}", host(NEIGHBOUR), id("first"));
        let seen = world.call_until_answered("caller", &call).await?;
        let hops = [("caller", "mtls"), ("first", "wpt"), ("second", "http-signature"), ("third", "jwt-svid")];
        let expected: String = hops.iter().map(|(account, method)| format!("{} by {method}\n", id(account))).collect();
        ensure!(seen == expected, "{seen}");

        for (port, status) in [(7002, 401), (7003, 400)] {
            let results = world.replay(NEIGHBOUR, port, "same").await?;
            ensure!(results.iter().all(|result| *result == json!(status)), "{port}: {results:?}");
        }
        for (port, other) in [(7002, "third"), (7003, "second")] {
            let results = world.replay(NEIGHBOUR, port, &format!("{}:8080", host(other))).await?;
            ensure!(results.iter().all(|result| [json!(400), json!(401)].contains(result)), "{port}: {results:?}");
        }
        // What is sent over TLS is of use in its own connection alone.
        let requests = async |pod: &str| {
            let said = world.app_output(pod).await?;
            anyhow::Ok(said.iter().filter(|line| is_event(line, "request")).count())
        };
        let before = (requests("first").await?, requests("last").await?);
        for port in [7001, 7004] {
            let results = world.replay(NEIGHBOUR, port, "same").await?;
            ensure!(results.iter().all(|result| *result == json!("closed")), "{port}: {results:?}");
        }
        let after = (requests("first").await?, requests("last").await?);
        ensure!(before == after && before.0 > 0 && before.1 > 0, "{before:?} requests before, {after:?} after");
        ensure!(world.call_until_answered("caller", &call).await? == expected, "honest calls go on");
        Ok(())
    })
    .await;
}

/// R9: a proof that one replica has seen is refused by the other, where they share what they remember, and accepted once where they do
/// not, which is documented.
#[tokio::test]
async fn replicas_that_share_a_replay_cache_refuse_what_the_other_has_seen() {
    scenario("replicas", async |world| {
        identities(world, &["caller", "shared", "apart", NEIGHBOUR]).await?;
        let redis = PodSpec {
            image: Image::Redis,
            labels: "countersign.dev/inject: 'false'",
            ..PodSpec::demo("redis", &["--save", "", "--protected-mode", "no", "--port", "6379"])
        };
        world.service_of("redis", "redis", &[6379]).await?;
        world.cluster.apply(&redis.pod(&world.namespace)).await?;
        world.ready("redis").await?;
        let serve = |port: u16, more: &str| {
            format!(
                "serve --listen 0.0.0.0:8080 --accept wpt --accept http-signature --origin http://{}:{port} --caller {} {more}",
                world.host(NEIGHBOUR),
                world.id("caller"),
            )
        };
        let cache = format!("--replay-cache redis://{}:6379", world.host("redis"));
        for (name, arguments) in [("shared", serve(7001, &cache)), ("apart", serve(7002, ""))] {
            let pods = PodSpec { image: Image::Hop, ..PodSpec::demo(name, &words(&arguments)) };
            world.cluster.apply(&pods.deployment(&world.namespace, 2)).await?;
        }
        let (mut addresses, mut forwards) = (Vec::new(), String::new());
        for (port, name) in [(7001, "shared"), (7002, "apart")] {
            let pods = world.ready_pods(name, 2).await?;
            let pods = pods.iter().map(|pod| Ok(format!("{}:8080", address(pod)?))).collect::<Result<Vec<_>>>()?;
            forwards += &format!(" --http {port}={}", pods[0]);
            addresses.push(pods);
        }
        world.hop(NEIGHBOUR, &[7001, 7002], &format!("neighbour --control 7000{forwards}")).await?;
        world.listens(NEIGHBOUR).await?;
        caller(world).await?;

        for (port, (name, proof)) in
            [(7001, ("shared", "wpt")), (7001, ("shared", "http-signature")), (7002, ("apart", "wpt"))]
        {
            let call = format!(
                "--next http://{}:{port}/ --prove {proof} --expect {}",
                world.host(NEIGHBOUR),
                world.id(name)
            );
            world.call_until_answered("caller", &call).await?;
        }
        let refused = |results: &[serde_json::Value]| {
            results.iter().all(|result| [json!(400), json!(401)].contains(result))
        };
        let [shared, apart] = addresses.as_slice() else { unreachable!("two Deployments") };
        for replica in shared {
            let results = world.replay(NEIGHBOUR, 7001, replica).await?;
            ensure!(refused(&results), "{results:?}");
        }
        let results = world.replay(NEIGHBOUR, 7001, &apart[0]).await?;
        ensure!(refused(&results), "it accepts the same proofs from the same caller, for itself: {results:?}");
        let results = world.replay(NEIGHBOUR, 7002, &apart[1]).await?;
        ensure!(results.contains(&json!(200)), "the other replica has not seen it: {results:?}");
        let results = world.replay(NEIGHBOUR, 7002, &apart[1]).await?;
        ensure!(refused(&results), "now it has: {results:?}");
        Ok(())
    })
    .await;
}

/// R79, R86: a proxy at which TLS ends alters and reuses requests and responses. What is signed is refused, by the service or by the caller;
/// what a WPT does not bind is accepted.
#[tokio::test]
async fn what_a_proxy_in_the_middle_alters_is_refused_as_far_as_the_proof_binds_it() {
    scenario("proxy", async |world| {
        identities(world, &["caller", "service", NEIGHBOUR]).await?;
        let serve = format!(
            "serve --listen 0.0.0.0:8080 --accept wpt --accept http-signature --origin https://{}:7001 --caller {}",
            world.host(NEIGHBOUR),
            world.id("caller"),
        );
        world.hop("service", &[8080], &serve).await?;
        let neighbour = format!("neighbour --control 7000 --https 7001={}:8080", world.host("service"));
        world.hop(NEIGHBOUR, &[7001], &neighbour).await?;
        caller(world).await?;
        world.listens("service").await?;
        world.listens(NEIGHBOUR).await?;
        let call = |proof: &str| {
            format!(
                "--next https://{}:7001/pay --proxy {} --prove {proof} --expect {}",
                world.host(NEIGHBOUR),
                world.id(NEIGHBOUR),
                world.id("service")
            )
        };
        for proof in ["wpt", "http-signature"] {
            world.call_until_answered("caller", &call(proof)).await?;
        }
        // What comes of a signed request, by the error of the caller, and of one with a WPT, by its status.
        for (what, signed, wpt) in [
            ("method", "status 400", 200),
            ("path", "status 400", 401),
            ("query", "status 400", 200),
            ("body", "status 400", 200),
            ("response-status", "status 201", 201),
            ("response-body", "status 200", 200),
            ("response-reused", "status 200", 200),
        ] {
            world.alter(NEIGHBOUR, what).await?;
            let answer = world.call("caller", &call("http-signature")).await?;
            let error = answer["error"].as_str().unwrap_or_default();
            ensure!(error.contains(signed) && error.contains("is not used"), "{what}: {answer}");
            let answer = world.call("caller", &call("wpt")).await?;
            ensure!(answer["status"] == wpt, "{what}: {answer}");
        }
        world.alter(NEIGHBOUR, "nothing").await?;
        world.call_until_answered("caller", &call("http-signature")).await.map(drop)
    })
    .await;
}

/// WIT authorities are rotated under 2,000 proofs, half of them made by the agents and half by the workload's own keys: none fails.
#[tokio::test]
async fn wit_authorities_rotate_under_two_thousand_proofs() {
    scenario("wit-rotate", async |world| {
        let authority = |rotation: &str| format!("bundleRefreshHint: 1s, wit: {{svidTTL: 10s}}, rotation: {{{rotation}}}");
        world.cluster.apply(&world.trust_domain_yaml(&authority("maxDelay: 1h"))).await?;
        for account in ["agents", "own", "service"] {
            world.cluster.apply(&world.identity_yaml(account, "wit: {exportKey: true}")).await?;
        }
        let serve = format!(
            "serve --listen 0.0.0.0:8080 --accept wpt --accept http-signature --origin http://{}:8080 --caller {} --caller {}",
            world.host("service"),
            world.id("agents"),
            world.id("own"),
        );
        world.hop("service", &[8080], &serve).await?;
        world.listens("service").await?;
        let then = world.authorities().await?;
        let before = then.active("wit").expect("a WIT authority signs");
        for (account, more) in [("agents", "--prove wpt"), ("own", "--prove http-signature --own-key")] {
            let call = format!(
                "call --count 1000000 --every-ms 20 --next http://{}:8080/ --expect {} {more}",
                world.host("service"),
                world.id("service")
            );
            let pod = PodSpec::client(account, Image::Hop, &words(&call));
            world.cluster.apply(&pod.pod(&world.namespace)).await?;
        }
        for account in ["agents", "own"] {
            world.wait_for_output(account, "that it calls", DEFAULT_TIMEOUT, |line| is_event(line, "calls")).await?;
        }
        let request = authority(&format!("maxDelay: 1h, after: '{}'", Timestamp::now()));
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        until("another WIT authority signs", DEFAULT_TIMEOUT, async || {
            Ok(world.authorities().await?.active("wit").filter(|active| *active != before))
        })
        .await?;
        for account in ["agents", "own"] {
            let calls = |line: &serde_json::Value| line["calls"].as_u64().filter(|_| is_event(line, "calls"));
            let said = world.app_output(account).await?;
            let at_switch = said.iter().filter_map(calls).max().unwrap_or(0);
            // A WIT-SVID of ten seconds is renewed within five, in which there are at most 250 calls.
            let enough = 1_000.max(at_switch + 500);
            let made = |line: &serde_json::Value| calls(line).is_some_and(|calls| calls >= enough);
            let sums = world.wait_for_output(account, "that it has called enough", DEFAULT_TIMEOUT, made).await?;
            ensure!(sums["failed"] == 0, "{account}: {sums}");
        }
        Ok(())
    })
    .await;
}

/// R10, R29: WIT-SVIDs of a tainted authority are replaced under calls of which none fails. What revoked authorities have signed is refused
/// within seconds, also with its key, as by somebody who has copied both; others go on with what a new authority signs.
#[tokio::test]
async fn a_tainted_wit_authority_is_replaced_under_calls_and_a_copied_wit_svid_of_a_revoked_one_is_refused() {
    scenario("wit-revoke", async |world| {
        // What a tainted authority has signed is accepted until the longest life of anything is over.
        let short = "bundleRefreshHint: 1s, x509: {svidTTL: 20s}, jwt: {svidTTL: 20s}, wit: {svidTTL: 20s}";
        let long = "bundleRefreshHint: 1s, wit: {}";
        world.cluster.apply(&world.trust_domain_yaml(short)).await?;
        for (account, more) in [("caller", "wit: {}"), ("thief", "wit: {exportKey: true}"), ("service", "wit: {}")] {
            world.cluster.apply(&world.identity_yaml(account, more)).await?;
        }
        let serve = format!(
            "serve --listen 0.0.0.0:8080 --accept wpt --origin http://{}:8080 --caller {} --caller {}",
            world.host("service"),
            world.id("caller"),
            world.id("thief"),
        );
        world.hop("service", &[8080], &serve).await?;
        world.listens("service").await?;
        caller(world).await?;
        let call =
            format!("--next http://{}:8080/ --prove wpt --expect {}", world.host("service"), world.id("service"));
        world.call_until_answered("caller", &call).await?;

        let before = world.authorities().await?.active("wit").expect("a WIT authority signs");
        let taint = format!("{short}, taint: {{maxDelay: 15s}}, tainted: ['{before}']");
        world.cluster.apply(&world.trust_domain_yaml(&taint)).await?;
        let failed = Cell::new(0);
        until("the tainted authority has left the bundle, while calls go on", DEFAULT_TIMEOUT, async || {
            let done = world.calls("caller", 50, &call).await?;
            failed.set(failed.get() + done["failed"].as_u64().unwrap_or(50));
            Ok((!world.authorities().await?.of_kind("wit").contains(&before)).then_some(()))
        })
        .await?;
        ensure!(failed.get() == 0, "{} calls failed while the authority was replaced", failed.get());

        world.cluster.apply(&world.trust_domain_yaml(long)).await?;
        let thief = format!("call {call} --own-key --stolen --count 100000 --every-ms 50");
        let thief = PodSpec::client("thief", Image::Hop, &words(&thief));
        world.cluster.apply(&thief.pod(&world.namespace)).await?;
        let calls = |line: &serde_json::Value| is_event(line, "calls") && line["failed"] == 0;
        world.wait_for_output("thief", "that it calls", DEFAULT_TIMEOUT, calls).await?;
        let revoked: Vec<String> =
            world.authorities().await?.of_kind("wit").iter().map(|id| format!("'{id}'")).collect();
        let revoke = format!("{long}, revoked: [{}]", revoked.join(", "));
        world.cluster.apply(&world.trust_domain_yaml(&revoke)).await?;
        let refused = |line: &serde_json::Value| is_event(line, "answer") && line["status"] == 400;
        world.wait_for_output("thief", "that its copy is refused", DEFAULT_TIMEOUT, refused).await?;
        world.call_until_answered("caller", &call).await.map(drop)
    })
    .await;
}
