//! Agents of earlier releases with the current operator: pods keep the agent that was injected when they were created.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::Result;
use countersign_e2e::{
    World,
    faults::report_counts,
    fixture::PodSpec,
    pods::is_event,
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use serde_json::json;

/// Images of stored agents (`e2e/agents/`), and the version in the metrics.
const STORED: [(&str, &str); 1] = [("countersign.local/agent:0.1.0", "0.1")];

/// Handshakes between a workload with a stored agent and one with the current agent.
const HANDSHAKES: u64 = 600;

/// A pod with a stored agent gets its identity, renews it, is authenticated by a pod with the current agent, and is
/// counted.
#[tokio::test]
async fn agents_of_earlier_builds_are_served_renewed_and_counted() {
    for (image, version) in STORED {
        scenario("skew", async |world| {
            world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 20s}")).await?;
            for account in ["today", "stored"] {
                world.cluster.apply(&world.identity_yaml(account, "")).await?;
            }
            let serve = PodSpec::demo("today", &["serve", "--listen", "0.0.0.0:8443", "--allow", &world.id("stored")]);
            world.cluster.apply(&serve.pod(&world.namespace)).await?;
            let server = world.ready("today").await?;
            let address = server.status.and_then(|status| status.pod_ip).expect("a ready pod has an address");

            let (target, expect) = (format!("{address}:8443"), world.id("today"));
            let count = HANDSHAKES.to_string();
            let call =
                ["call", "--target", &target, "--expect", &expect, "--every", "50ms", "--count", &count, "--stay"];
            let spec = PodSpec::demo("stored", &call);
            world.handmade_pod_with_agent(&spec, |agent| agent.image = Some(image.to_owned())).await?;
            world.ready("stored").await?;

            assert!(agents(world, version).await? >= 1, "{version} is counted");
            let all =
                |line: &serde_json::Value| is_event(line, "summary") && line["handshakes"].as_u64() >= Some(HANDSHAKES);
            let sums =
                world.wait_for_output("stored", "that all handshakes are done", DEFAULT_TIMEOUT * 2, all).await?;
            assert_eq!(sums["failed"], 0, "{sums}");
            let serials = |side: &str| sums[side].as_array().map_or(0, Vec::len);
            assert!(serials("serials") >= 2, "the stored agent renews: {sums}");
            report_counts(
                "skew",
                &json!({
                    "agent": image, "handshakes": sums["handshakes"], "failed": sums["failed"],
                    "renewals_of_stored": serials("serials"), "renewals_of_todays": serials("peer_serials"),
                }),
            )
        })
        .await;
    }
}

/// The number of sessions of agents of a version, over all replicas.
async fn agents(world: &World, version: &str) -> Result<u64> {
    let metric = format!("countersign_agents{{version=\"{version}\"}}");
    until("the operator counts its agents", DEFAULT_TIMEOUT, async || {
        Ok(Some(world.operator_metric(&metric).await?).filter(|sum| *sum > 0))
    })
    .await
}
