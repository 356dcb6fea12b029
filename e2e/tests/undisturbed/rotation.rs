//! Authorities are replaced, tainted and revoked by fields of the TrustDomain while workloads talk.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_e2e::{
    World,
    fixture::{AUDIENCE, PodSpec},
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;
use serde_json::Value;

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
        let then = Authorities::of(world).await?;
        ensure!(then.ids("prepared").len() == 2, "a spare of each kind exists from the first day: {then:?}");

        let request = authority(&format!("maxDelay: 1h, after: '{}'", Timestamp::now()));
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        until("the rotation is complete", DEFAULT_TIMEOUT, async || {
            Ok(condition(world, "RotationComplete").await?.filter(|(status, _)| status == "True"))
        })
        .await?;
        let now = Authorities::of(world).await?;
        ensure!(now.ids("active").is_disjoint(&then.all()), "{then:?}\n{now:?}");
        ensure!(now.ids("retiring") == then.ids("active"), "{then:?}\n{now:?}");

        let sums = world.both_renewed(before, DEFAULT_TIMEOUT * 2).await?;
        ensure!(sums.failed == 0, "{sums:?}");
        let acknowledged = until("everyone has acknowledged the bundle", DEFAULT_TIMEOUT, async || {
            let found = condition(world, "BundleAcknowledged").await?;
            Ok(found.filter(|(status, _)| status == "True").map(|(_, message)| message))
        });
        let acknowledged = acknowledged.await?;
        ensure!(acknowledged.contains("2/2"), "{acknowledged}");
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        world.traffic_since(sums, 50, DEFAULT_TIMEOUT).await?;
        ensure!(Authorities::of(world).await?.ids("active") == now.ids("active"), "it is done once");
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
            async || Ok(Authorities::of(world).await?.ids("tainted").contains(&tainted).then_some(())),
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
            let removed = status(world).await?["removed"].as_array().cloned().unwrap_or_default();
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
        let then = Authorities::of(world).await?;

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
            let now = Authorities::of(world).await?;
            Ok((!now.all().is_empty() && now.all().is_disjoint(&then.all())).then_some(now))
        })
        .await?;
        let (status, message) = until("the status judges the names", DEFAULT_TIMEOUT, async || {
            condition(world, "RequestedAuthoritiesKnown").await
        })
        .await?;
        ensure!(status == "False" && message.contains("00ff"), "a name that means nothing is told: {status} {message}");
        ensure!(then.all().iter().all(|id| !message.contains(id)), "and no other: {message}");

        world.cluster.apply(&world.trust_domain_yaml(AUTHORITY)).await?;
        world.traffic("50ms").await?;
        world.traffic_continues(20).await?;
        ensure!(Authorities::of(world).await?.all() == now.all(), "removing the entries undoes nothing");
        Ok(())
    })
    .await;
}

/// Ids and states of a TrustDomain's authorities.
#[derive(Debug)]
struct Authorities(Vec<(String, String)>);

impl Authorities {
    async fn of(world: &World) -> Result<Self> {
        let all = status(world).await?["authorities"].as_array().cloned().unwrap_or_default();
        let text = |one: &Value, member: &str| one[member].as_str().unwrap_or_default().to_owned();
        Ok(Self(all.iter().map(|one| (text(one, "id"), text(one, "state"))).collect()))
    }

    fn ids(&self, wanted: &str) -> BTreeSet<String> {
        self.0.iter().filter(|(_, state)| state == wanted).map(|(id, _)| id.clone()).collect()
    }

    fn all(&self) -> BTreeSet<String> {
        self.0.iter().map(|(id, _)| id.clone()).collect()
    }
}

async fn status(world: &World) -> Result<Value> {
    let object = world.cluster.trust_domains().await?.get(&world.trust_domain).await?;
    Ok(object.data["status"].clone())
}

/// Status and message of a condition that speaks of the spec as it is now.
async fn condition(world: &World, type_: &str) -> Result<Option<(String, String)>> {
    let object = world.cluster.trust_domains().await?.get(&world.trust_domain).await?;
    let all = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|one| one["type"] == type_);
    let current = found.filter(|one| one["observedGeneration"].as_i64() == object.metadata.generation);
    let text = |one: &Value, member: &str| one[member].as_str().unwrap_or_default().to_owned();
    Ok(current.map(|one| (text(&one, "status"), text(&one, "message"))))
}

/// The `kid` of a token.
fn key_id(token: &str) -> Result<String> {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap_or_default()).context("a token's header")?;
    let header: Value = serde_json::from_slice(&header).context("a token's header")?;
    Ok(header["kid"].as_str().context("a token without kid")?.to_owned())
}
