//! R62: WIT-SVIDs, as an unmodified client of the Workload API gets them.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::collections::BTreeSet;

use countersign_e2e::{
    fixture::{Image, PodSpec},
    pods::is_event,
    scenario,
    wait::DEFAULT_TIMEOUT,
};

/// The number of updates that the client watches: the first, and two renewals.
const UPDATES: &str = "3";

/// Each is validated by the WIT bundles, and bound to a key of its own, which the client has (R62, R72).
#[tokio::test]
async fn go_spiffe_watches_wit_svids_each_with_a_new_key() {
    scenario("wit-go", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("wit: {svidTTL: 20s}")).await?;
        world.cluster.apply(&world.identity_yaml("client", "wit: {exportKey: true}")).await?;
        let client = PodSpec::client("client", Image::ClientGo, &["-wits", UPDATES]);
        world.cluster.apply(&client.pod(&world.namespace)).await?;
        world.succeeded("client").await?;

        let said = world.app_output("client").await?;
        let updates: Vec<_> = said.iter().filter(|line| is_event(line, "wit")).collect();
        assert_eq!(updates.len(), 3, "{said:?}");
        for update in &updates {
            assert_eq!(update["id"], world.id("client"));
            assert_eq!(update["holds_key"], true);
            assert_eq!(update["authorities"], 2, "one signs, one is its spare");
        }
        let keys: BTreeSet<_> = updates.iter().map(|update| update["key"].to_string()).collect();
        assert_eq!(keys.len(), 3, "a new key with each WIT-SVID");
        world.identity_condition("client", "WITAvailable", "True", "Issued").await.map(drop)
    })
    .await;
}

/// The key stays in the agent, and the refusal says how to change that (R10).
#[tokio::test]
async fn without_export_key_the_workload_does_not_get_the_key() {
    scenario("wit-kept", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("wit: {}")).await?;
        world.cluster.apply(&world.identity_yaml("client", "wit: {}")).await?;
        let client = PodSpec::client("client", Image::ClientGo, &["-wits", "1"]);
        world.cluster.apply(&client.pod(&world.namespace)).await?;
        let refused = world
            .wait_for_output("client", "that it is refused", DEFAULT_TIMEOUT, |line| is_event(line, "watch-error"))
            .await?;
        let error = refused["error"].to_string();
        assert!(error.contains("PermissionDenied") && error.contains("wit.exportKey"), "{error}");
        Ok(())
    })
    .await;
}

/// A WorkloadIdentity asks, and its TrustDomain does not offer: the condition says so, and the rest of the identity is served. With
/// the authority added, the same pod gets WIT-SVIDs.
#[tokio::test]
async fn a_trust_domain_without_wit_authorities_is_named_and_delays_nothing_else() {
    scenario("wit-absent", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("client", "wit: {exportKey: true}")).await?;
        let client = PodSpec::client("client", Image::ClientGo, &["-wits", "1"]);
        world.cluster.apply(&client.pod(&world.namespace)).await?;
        world.ready("client").await?;
        world.identity_condition("client", "WITAvailable", "False", "NoWITAuthority").await?;

        world.cluster.apply(&world.trust_domain_yaml("wit: {}")).await?;
        world.identity_condition("client", "WITAvailable", "True", "Issued").await?;
        world.succeeded("client").await.map(drop)
    })
    .await;
}
