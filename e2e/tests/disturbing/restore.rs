//! etcd is restored from a backup that is older than a revocation (`docs/recovery.md`).

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    credential::Credential,
    faults::{faulty, report_counts},
    fixture::PodSpec,
    replicas::{OPERATOR, address},
    stolen_credential::Answer,
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::Timestamp;
use serde_json::json;

/// Leaves live for an hour: whoever has another one within the test got it by push.
const AUTHORITY: &str = "bundleRefreshHint: 1s";

/// R25, R53: journal and status agree, so that only agents that ran on can tell, and what was revoked is not trusted again once
/// the page was followed.
#[tokio::test]
#[ignore = "soak"]
async fn soak_after_a_restore_of_etcd_what_was_revoked_is_not_trusted_again() {
    faulty("restored", async |world, faults| {
        let replicas = world.replicas(OPERATOR).await?;
        world.cluster.apply(&world.trust_domain_yaml(AUTHORITY)).await?;
        world.new_pod("holder").await?;
        world.cluster.apply(&world.identity_yaml("peer", "")).await?;
        let serve = PodSpec::demo("peer", &["serve", "--listen", "0.0.0.0:8443", "--allow", &world.id("holder")]);
        world.cluster.apply(&serve.pod(&world.namespace)).await?;
        let peer = format!("{}:8443", address(&world.ready("peer").await?)?);
        let leaked = world.credential("holder").await?;
        until("the peer accepts the credential", DEFAULT_TIMEOUT, async || accepts(world, &leaked, &peer).await)
            .await?;
        let all: Vec<String> = world.authorities().await?.all().iter().map(|id| format!("'{id}'")).collect();
        let revoked = format!("{AUTHORITY}, revoked: [{}]", all.join(", "));

        let mut fault = faults.begin(&["backup"]).await?;
        world.cluster.apply(&world.trust_domain_yaml(&revoked)).await?;
        let renewed = renewed(world, &[&leaked]).await?;
        let before = sequence(world).await?;
        fault.send("restore").await?;

        // As after every restore what watches is started anew. Whoever did not read our page leaves it at that.
        world.scale(OPERATOR, 0).await?;
        world.scale(OPERATOR, replicas).await?;
        let told = until("agents tell of a newer bundle", DEFAULT_TIMEOUT, async || {
            let found = world.trust_domain_condition("BundleSequenceConsistent").await?;
            Ok(found.filter(|(status, _)| status == "False").map(|(_, message)| message))
        })
        .await?;
        ensure!(told.contains("holder"), "{told}");
        ensure!(
            !world.trusted_authorities("holder").await?.contains(&leaked.authority),
            "an agent went back to an older bundle"
        );

        // As the page says.
        world.scale(OPERATOR, 0).await?;
        let request = format!("{revoked}, rotation: {{after: '{}'}}", Timestamp::now());
        world.cluster.apply(&world.trust_domain_yaml(&request)).await?;
        world.scale(OPERATOR, replicas).await?;
        let last = self::renewed(world, &[&leaked, &renewed]).await?;
        until("the sequence is above all that agents know", DEFAULT_TIMEOUT, async || {
            let found = world.trust_domain_condition("BundleSequenceConsistent").await?;
            Ok(found.filter(|(status, _)| status == "True"))
        })
        .await?;
        let after = sequence(world).await?;
        ensure!(after > before, "{after} is not above {before}");
        until("the peer accepts the new credential", DEFAULT_TIMEOUT, async || accepts(world, &last, &peer).await)
            .await?;
        let answer = leaked.present(&peer).await?;
        ensure!(matches!(answer, Answer::Refused(_)), "what was revoked is trusted again: {answer:?}");
        fault.end().await?;
        report_counts("etcd is restored from a backup", &json!({ "sequence_before": before, "sequence_after": after }))
    })
    .await;
}

async fn accepts(world: &World, credential: &Credential, peer: &str) -> Result<Option<()>> {
    Ok((credential.present(peer).await? == Answer::Accepted(world.id("holder"))).then_some(()))
}

/// Waits until the holder's leaf is of another authority than these.
async fn renewed(world: &World, than: &[&Credential]) -> Result<Credential> {
    until("the pod has a leaf of another authority", DEFAULT_TIMEOUT, async || {
        let now = world.credential("holder").await?;
        Ok(than.iter().all(|old| old.authority != now.authority).then_some(now))
    })
    .await
}

async fn sequence(world: &World) -> Result<i64> {
    world.trust_domain_status().await?["bundle"]["sequence"].as_i64().context("no sequence")
}
