//! Identities are renewed under live traffic without affecting it.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::time::Duration;

use countersign_e2e::{fixture::PodSpec, pods::is_event, scenario, wait::DEFAULT_TIMEOUT};

/// Full handshakes in all.
const HANDSHAKES: u64 = 5_000;
/// The timeout; the minimum follows from the pace, which leaves time for several renewals.
const DEADLINE: Duration = Duration::from_secs(240);

/// Every handshake is a full one on a new connection.
#[tokio::test]
async fn five_thousand_handshakes_over_renewals_of_both_sides_and_none_fails() {
    scenario("renewal", async |world| {
        let serve = PodSpec::demo("server", &["serve", "--listen", "0.0.0.0:8443", "--allow", &world.id("client")]);
        world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 20s}")).await?;
        for account in ["server", "client"] {
            world.cluster.apply(&world.identity_yaml(account, "")).await?;
        }
        world.cluster.apply(&serve.pod(&world.namespace)).await?;
        let address =
            world.ready("server").await?.status.and_then(|status| status.pod_ip).expect("a ready pod has an address");

        let (target, expect, count) = (format!("{address}:8443"), world.id("server"), HANDSHAKES.to_string());
        let call = [
            "call",
            "--target",
            &target,
            "--expect",
            &expect,
            "--every",
            "40ms",
            "--concurrency",
            "4",
            "--count",
            &count,
            "--stay",
        ];
        world.cluster.apply(&PodSpec::demo("client", &call).pod(&world.namespace)).await?;
        world.ready("client").await?;

        let all =
            |line: &serde_json::Value| is_event(line, "summary") && line["handshakes"].as_u64() >= Some(HANDSHAKES);
        for (pod, deadline) in [("client", DEADLINE), ("server", DEFAULT_TIMEOUT)] {
            let sums = world.wait_for_output(pod, "that all handshakes are done", deadline, all).await?;
            assert_eq!(sums["failed"], 0, "{pod}: {sums}");
            for side in ["serials", "peer_serials"] {
                let serials = sums[side].as_array().map_or(0, Vec::len);
                assert!(serials >= 3, "{pod} saw {serials} of {side}");
            }
        }
        Ok(())
    })
    .await;
}

/// R71.
#[tokio::test]
async fn a_reader_of_the_files_never_sees_a_mixed_pair_over_renewals() {
    scenario("reader", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 10s}")).await?;
        world.cluster.apply(&world.identity_yaml("reader", "")).await?;
        let reader = PodSpec { restart: "Never", ..PodSpec::demo("reader", &["read-files", "--changes", "10"]) };
        world.cluster.apply(&reader.pod(&world.namespace)).await?;
        let all = |line: &serde_json::Value| is_event(line, "files");
        let read = world.wait_for_output("reader", "what it read", DEADLINE, all).await?;
        assert_eq!(read["failures"], serde_json::json!([]), "{read}");
        assert!(read["serials"].as_u64() > Some(10), "{read}");
        assert!(read["reads"].as_u64() > Some(1_000), "{read}");
        Ok(())
    })
    .await;
}
