//! Many remote trust domains at once.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use countersign_e2e::{
    Cluster, World,
    apply::{FIELD_MANAGER, documents},
    credential::{FOLDER, TRUST_BUNDLE_SUFFIX},
    faults::report_counts,
    fixture::PodSpec,
    hostile_endpoint::HostileEndpoint,
    scenario,
    usage::Usage,
    wait::DEFAULT_TIMEOUT,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kube::{
    ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::hostile::{LIES, Lie, among_remotes, nothing_is_stored, ready};

/// Remote trust domains, and every which of them lies.
const MANY: usize = 500;
const LIAR: usize = 10;
/// Requests at the same time.
const AT_ONCE: usize = 16;
/// Pods whose starts are timed before, and again afterwards.
const STARTS: usize = 5;

/// R50: as many peers as a large organisation has, introduced all at once, of which one in ten lies. All others are trusted, and what
/// is not federated does not notice.
#[tokio::test]
#[ignore = "soak"]
async fn soak_five_hundred_remote_trust_domains_of_which_one_in_ten_lies() {
    among_remotes("many", async |world| {
        // Its own namespace and trust domain.
        let mut unrelated = Ok(());
        scenario("unrelated", async |bystander| {
            unrelated = many(world, bystander).await;
            Ok(())
        })
        .await;
        unrelated
    })
    .await;
}

async fn many(world: &World, bystander: &World) -> Result<()> {
    let hostile = world.hostile_endpoint().await?;
    let federates = format!("federatesWith: ['{}']", honest(world, 1));
    world.cluster.apply(&world.granting_yaml("", &federates)).await?;
    world.cluster.apply(&world.identity_yaml("holder", &federates)).await?;
    bystander.cluster.apply(&bystander.trust_domain_yaml("")).await?;
    bystander.cluster.apply(&bystander.identity_yaml("holder", "")).await?;
    let started_before = starts(world, "before").await?;
    let usage_before = world.operator_usage(Timestamp::now()).await?;

    let begun = Instant::now();
    apply(&world.cluster, introduced(world, &hostile)).await?;
    let applied = begun.elapsed();
    let begun_unrelated = Instant::now();
    bystander.cluster.apply(&PodSpec::hold("holder").pod(&bystander.namespace)).await?;
    bystander.ready("holder").await?;
    let unrelated = begun_unrelated.elapsed();
    ensure!(bystander.credential("holder").await?.id == bystander.id("holder"));
    all_are(world, |number, object| number % LIAR == 0 || ready(&object.data["status"]) == ("True", "Polled")).await?;
    let all_ready = begun.elapsed();
    all_are(world, |number, object| number % LIAR != 0 || lie(number).is_named(object).is_ok()).await?;
    let all_named = begun.elapsed();

    let started_after = starts(world, "after").await?;
    world.file("after-0", &format!("{FOLDER}/{}{TRUST_BUNDLE_SUFFIX}", honest(world, 1))).await?;
    let usage_after = world.operator_usage(Timestamp::now()).await?;
    let begun_deletion = Instant::now();
    world.delete_remotes().await?;
    nothing_is_stored(world).await?;
    report_counts(
        "many remote trust domains",
        &json!({
            "remote": MANY, "lying": MANY / LIAR,
            "applied_after_s": applied.as_secs(), "all_ready_after_s": all_ready.as_secs(),
            "all_lies_named_after_s": all_named.as_secs(), "gone_after_s": begun_deletion.elapsed().as_secs(),
            "start_before_ms": started_before.as_millis(), "start_after_ms": started_after.as_millis(),
            "unrelated_start_meanwhile_ms": unrelated.as_millis(),
            "operators": used(&usage_before, &usage_after)?,
        }),
    )
}

/// The trust domain of this number.
fn honest(world: &World, number: usize) -> String {
    format!("n{number}.{}", world.trust_domain)
}

/// What the one of this number does, which is a multiple of [`LIAR`].
fn lie(number: usize) -> &'static Lie {
    &LIES[number / LIAR % LIES.len()]
}

/// All remote TrustDomains.
fn introduced(world: &World, hostile: &HostileEndpoint) -> Vec<String> {
    let remote = |number: usize| {
        let domain = honest(world, number);
        let path = format!("/honest/{number}");
        let path = if number.is_multiple_of(LIAR) { lie(number).path } else { &path };
        world.remote_at(&domain, &hostile.at(path, &domain))
    };
    (0..MANY).map(remote).collect()
}

/// As [`Cluster::apply`], several at a time, and the API server is asked once for their kind.
async fn apply(cluster: &Cluster, remotes: Vec<String>) -> Result<()> {
    let api = cluster.trust_domains().await?;
    let applied = stream::iter(remotes).map(|yaml| {
        let api = api.clone();
        async move {
            let object = documents(&yaml)?.pop().context("one object")?;
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(&object.name_any(), &parameters, &Patch::Apply(&object)).await.context("apply")?;
            anyhow::Ok(())
        }
    });
    applied.buffer_unordered(AT_ONCE).try_collect().await
}

/// Waits until each of the remote TrustDomains was seen as it is wanted.
async fn all_are(world: &World, wanted: impl Fn(usize, &DynamicObject) -> bool) -> Result<()> {
    let mut missing: BTreeSet<usize> = (0..MANY).collect();
    let config = watcher::Config::default().labels(world.selected().label_selector.as_deref().unwrap_or_default());
    let watching = async {
        let domains = world.cluster.trust_domains().await?;
        let mut seen = std::pin::pin!(watcher(domains, config).default_backoff().applied_objects());
        while let Some(object) = seen.next().await {
            // The watcher retries after an error.
            let Ok(object) = object else { continue };
            let name = object.name_any();
            let number = name.split('.').next().and_then(|label| label.strip_prefix('n')?.parse().ok());
            let number = number.with_context(|| format!("the number of {name}"))?;
            if wanted(number, &object) {
                missing.remove(&number);
            }
            if missing.is_empty() {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    let outcome = timeout(DEFAULT_TIMEOUT * 2, watching).await;
    outcome.unwrap_or_else(|_| bail!("{} are not: {missing:?}", missing.len()))
}

/// The median time from the creation of a pod until it is ready, which is after its identity.
async fn starts(world: &World, name: &str) -> Result<Duration> {
    let mut took = Vec::new();
    for number in 0..STARTS {
        let name = format!("{name}-{number}");
        let begun = Instant::now();
        world.cluster.apply(&PodSpec::hold(&name).account("holder").pod(&world.namespace)).await?;
        world.ready(&name).await?;
        took.push(begun.elapsed());
    }
    took.sort();
    took.get(STARTS / 2).copied().context("no start")
}

/// Of each replica of the operator: resident memory before and after, its growth for each remote trust domain, and processor time.
fn used(before: &BTreeMap<String, Usage>, after: &BTreeMap<String, Usage>) -> Result<Vec<Value>> {
    let of_one = |(pod, after): (&String, &Usage)| {
        let before = before.get(pod).with_context(|| format!("{pod} was restarted"))?;
        let growth = after.resident.saturating_sub(before.resident);
        anyhow::Ok(json!({
            "before_kib": before.resident, "after_kib": after.resident, "kib_for_each": growth / MANY as u64,
            "cpu_s": (after.cpu - before.cpu).round(),
        }))
    };
    after.iter().map(of_one).collect()
}
