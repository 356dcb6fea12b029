//! Agents acknowledge what is in effect.

use countersign_e2e::{
    fixture::PodSpec,
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};

const ACKNOWLEDGEMENTS: &str = "countersign_acknowledgements_total";

/// Other tests' agents acknowledge too, so the number says only that agents of this build do.
#[tokio::test]
async fn the_operator_counts_what_an_agent_acknowledges() {
    scenario("acknowledged", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("orders", "")).await?;
        let before = world.operator_metric(ACKNOWLEDGEMENTS).await?;
        world.cluster.apply(&PodSpec::hold("orders").pod(&world.namespace)).await?;
        world.ready("orders").await?;
        until("an acknowledgement", DEFAULT_TIMEOUT, async || {
            Ok((world.operator_metric(ACKNOWLEDGEMENTS).await? > before).then_some(()))
        })
        .await
    })
    .await;
}
