//! Authorities are replaced, tainted and revoked by fields of the TrustDomain while workloads talk.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::ensure;
use countersign_e2e::{
    authorities::key_id,
    fixture::{AUDIENCE, PodSpec},
    kubectl::warnings,
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;

/// Leaves live for an hour: whoever has another one within a test got it by push.
const AUTHORITY: &str = "bundleRefreshHint: 1s";

/// R53: everything is replaced as soon as everyone has acknowledged the successors, long before the bound, which is an hour
/// here, and no handshake fails. The same request again does nothing.
#[tokio::test]
async fn a_requested_rotation_replaces_all_authorities_under_traffic_once() {
    scenario("rotate", async |world| {
        let authority = |rotation: &str| format!("{AUTHORITY}, x509: {{svidTTL: 20s}}, rotation: {{{rotation}}}");
        world.cluster.apply(&world.trust_domain_yaml(&authority("maxDelay: 1h"))).await?;
        world.traffic("50ms").await?;
        let before = world.traffic_continues(1).await?;
        let then = world.authorities().await?;
        ensure!(then.ids("prepared").len() == 2, "a spare of each kind exists from the first day: {then:?}");

        let request = authority(&format!("maxDelay: 1h, after: '{}'", Timestamp::now()));
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        until("the rotation is complete", DEFAULT_TIMEOUT, async || {
            Ok(world.trust_domain_condition("RotationComplete").await?.filter(|(status, _)| status == "True"))
        })
        .await?;
        let now = world.authorities().await?;
        ensure!(now.ids("active").is_disjoint(&then.all()), "{then:?}\n{now:?}");
        ensure!(now.ids("retiring") == then.ids("active"), "{then:?}\n{now:?}");

        let sums = world.both_renewed(before, DEFAULT_TIMEOUT * 2).await?;
        ensure!(sums.failed == 0, "{sums:?}");
        let acknowledged = until("everyone has acknowledged the bundle", DEFAULT_TIMEOUT, async || {
            let found = world.trust_domain_condition("BundleAcknowledged").await?;
            Ok(found.filter(|(status, _)| status == "True").map(|(_, message)| message))
        });
        let acknowledged = acknowledged.await?;
        ensure!(acknowledged.contains("2/2"), "{acknowledged}");
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        world.traffic_since(sums, 50, DEFAULT_TIMEOUT).await?;
        ensure!(world.authorities().await?.ids("active") == now.ids("active"), "it is done once");
        Ok(())
    })
    .await;
}

/// The spare signs at once, every leaf and file is renewed by push, then the anchor leaves the bundle. No handshake fails.
#[tokio::test]
async fn of_a_tainted_authority_everything_is_renewed_by_push_before_it_leaves_the_bundle() {
    scenario("taint", async |world| {
        world.cluster.apply(&world.trust_domain_yaml(AUTHORITY)).await?;
        world.cluster.apply(&world.identity_yaml("holder", &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
        world.cluster.apply(&PodSpec::hold("holder").pod(&world.namespace)).await?;
        world.ready("holder").await?;
        world.traffic("50ms").await?;
        let before = world.traffic_continues(1).await?;
        let (leaf, token) = (world.credential("holder").await?, world.jwt_file("holder", AUDIENCE).await?);

        let colons: Vec<_> = leaf.authority.as_bytes().chunks(2).map(|two| String::from_utf8_lossy(two)).collect();
        let tainted = format!("tainted: ['{}', '{}']", colons.join(":").to_uppercase(), key_id(&token)?);
        let request = format!("{AUTHORITY}, taint: {{maxDelay: 15s}}, {tainted}");
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        until("leaf and token are of other authorities", DEFAULT_TIMEOUT, async || {
            let (new_leaf, new_token) = (world.credential("holder").await?, world.jwt_file("holder", AUDIENCE).await?);
            let renewed = new_leaf.authority != leaf.authority && key_id(&new_token)? != key_id(&token)?;
            Ok(renewed.then_some(()))
        })
        .await?;
        let tainted = key_id(&token)?;
        until(
            "the status has the key as tainted: tokens that were handed out verify on",
            DEFAULT_TIMEOUT,
            async || Ok(world.authorities().await?.ids("tainted").contains(&tainted).then_some(())),
        )
        .await?;

        until("the anchor has left the bundle", DEFAULT_TIMEOUT, async || {
            Ok((!world.trusted_authorities("holder").await?.contains(&leaf.authority)).then_some(()))
        })
        .await?;
        let sums = world.both_renewed(before, DEFAULT_TIMEOUT).await?;
        let sums = world.traffic_since(sums, 50, DEFAULT_TIMEOUT).await?;
        ensure!(sums.failed == 0, "{sums:?}");
        until("the status says that it is gone", DEFAULT_TIMEOUT, async || {
            let removed = world.trust_domain_status().await?["removed"].as_array().cloned().unwrap_or_default();
            Ok(removed.iter().any(|one| one["subjectKeyId"] == leaf.authority.as_str()).then_some(()))
        })
        .await
    })
    .await;
}

/// Active and spare share a Secret, so a leak takes both: a new root is made and pushed, and everyone gets a new leaf.
#[tokio::test]
async fn of_revoked_authorities_nothing_is_trusted_any_more_and_a_new_root_serves_everyone() {
    scenario("revoke", async |world| {
        world.cluster.apply(&world.trust_domain_yaml(AUTHORITY)).await?;
        world.cluster.apply(&world.identity_yaml("holder", &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
        world.cluster.apply(&PodSpec::hold("holder").pod(&world.namespace)).await?;
        world.ready("holder").await?;
        let (leaf, token) = (world.credential("holder").await?, world.jwt_file("holder", AUDIENCE).await?);
        let then = world.authorities().await?;

        let misspelt = format!("{AUTHORITY}, tainted: ['{}', '00FF']", leaf.authority.to_uppercase());
        let told = warnings(&world.trust_domain_yaml(&misspelt))?;
        ensure!(told.contains("Warning: spec.authority.tainted[1]: no authority has the id 00FF"), "{told}");
        ensure!(!told.contains("tainted[0]"), "an authority of now was warned of: {told}");

        let revoked: Vec<String> = then.all().iter().map(|id| format!("'{id}'")).collect();
        let revoked = revoked.join(", ");
        let request = format!("{AUTHORITY}, revoked: [{revoked}, '00ff']");
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        until("leaf and token are of new authorities", DEFAULT_TIMEOUT, async || {
            let (new_leaf, new_token) = (world.credential("holder").await?, world.jwt_file("holder", AUDIENCE).await?);
            let renewed = new_leaf.authority != leaf.authority && key_id(&new_token)? != key_id(&token)?;
            Ok(renewed.then_some(()))
        })
        .await?;
        ensure!(!world.trusted_authorities("holder").await?.contains(&leaf.authority), "it left the bundle at once");
        let now = until("the status has other authorities", DEFAULT_TIMEOUT, async || {
            let now = world.authorities().await?;
            Ok((!now.all().is_empty() && now.all().is_disjoint(&then.all())).then_some(now))
        })
        .await?;
        let (status, message) = until("the status judges the names", DEFAULT_TIMEOUT, async || {
            world.trust_domain_condition("RequestedAuthoritiesKnown").await
        })
        .await?;
        ensure!(status == "False" && message.contains("00ff"), "a name that means nothing is told: {status} {message}");
        ensure!(then.all().iter().all(|id| !message.contains(id)), "and no other: {message}");

        world.cluster.apply(&world.trust_domain_yaml(AUTHORITY)).await?;
        world.traffic("50ms").await?;
        world.traffic_continues(20).await?;
        ensure!(world.authorities().await?.all() == now.all(), "removing the entries undoes nothing");
        Ok(())
    })
    .await;
}
