//! Agents acknowledge what is in effect.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use countersign_e2e::{
    fixture::PodSpec,
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};

/// The numbers are those of the test's own trust domain: before its first pod nobody is expected to, then that one has.
#[tokio::test]
async fn the_operator_counts_what_an_agent_acknowledges() {
    scenario("acknowledged", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("orders", "")).await?;
        until("nobody is expected to acknowledge", DEFAULT_TIMEOUT, async || {
            Ok((world.trust_domain_status().await?["bundle"]["acknowledged"] == "0/0").then_some(()))
        })
        .await?;
        world.cluster.apply(&PodSpec::hold("orders").pod(&world.namespace)).await?;
        world.ready("orders").await?;
        until("the pod has acknowledged the bundle", DEFAULT_TIMEOUT, async || {
            Ok((world.trust_domain_status().await?["bundle"]["acknowledged"] == "1/1").then_some(()))
        })
        .await
    })
    .await;
}
