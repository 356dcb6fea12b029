//! Peers whose bundle endpoints lie: each is named in the status of its own TrustDomain, and touches nothing else.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use countersign_contract::{
    environment::test::KEEP,
    objects::{FEDERATION_NAMESPACE, remote_bundle},
};
use countersign_e2e::{
    World,
    cluster::SYSTEM,
    credential::{FOLDER, TRUST_BUNDLE_SUFFIX},
    endpoint::SPIFFE_PORT,
    fixture::PodSpec,
    hostile_endpoint::MARKER,
    pods::AGENT,
    replicas::OPERATOR,
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, LogParams},
};
use serde_json::{Value, json};

/// Conditions that say how the TrustDomain is as a whole.
const GENERAL: [&str; 4] = ["Ready", "Reconciling", "Stalled", "ConsentsComplete"];
/// Bounds of the time from a poll to the next one.
const SOONEST: SignedDuration = SignedDuration::from_secs(30);
const LATEST: SignedDuration = SignedDuration::from_secs(3600);

/// A way to lie, and what is said of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lie {
    /// The path of the hostile endpoint; without the slash, the first label of the trust domain.
    pub(crate) path: &'static str,
    /// `None`: nothing is taken. Otherwise the conditions that are true.
    taken: Option<&'static [&'static str]>,
    /// The reason of the last error.
    error: Option<&'static str>,
}

/// Nothing of it is taken.
const fn refused(path: &'static str, error: &'static str) -> Lie {
    Lie { path, taken: None, error: Some(error) }
}

/// It is taken, and these conditions say what to think of it.
const fn taken(path: &'static str, conditions: &'static [&'static str]) -> Lie {
    Lie { path, taken: Some(conditions), error: None }
}

/// All of them.
pub(crate) const LIES: [Lie; 25] = [
    refused("/html", "Malformed"),
    refused("/deep", "Malformed"),
    refused("/duplicate", "Malformed"),
    refused("/status-500", "Status"),
    refused("/slow", "Timeout"),
    refused("/gigabyte", "TooLong"),
    refused("/endless", "TooLong"),
    refused("/gzip", "Interrupted"),
    refused("/broken-off", "Interrupted"),
    refused("/long-head", "Interrupted"),
    refused("/redirect-http", "Redirect"),
    refused("/redirect-loop", "Redirect"),
    refused("/redirect-private", "AddressRefused"),
    refused("/redirect-loopback", "AddressRefused"),
    // An address that may be called, of a server that is not the endpoint.
    refused("/redirect-cluster", "UntrustedCertificate"),
    refused("/other-domain", "WrongTrustDomain"),
    taken("/empty", &["SequenceMissing", "TrustsNothing"]),
    taken("/many", &["KeysDropped"]),
    taken("/unknown", &[]),
    taken("/no-sequence", &["SequenceMissing"]),
    taken("/hint-zero", &[]),
    taken("/hint-year", &[]),
    taken("/numbers-max", &[]),
    // At the second poll.
    taken("/reused", &["SequenceReused"]),
    Lie { error: Some("LowerSequence"), ..taken("/backwards", &["PollFailing"]) },
];

impl Lie {
    /// The trust domain of the test that tells it.
    pub(crate) fn trust_domain(&self, world: &World) -> String {
        format!("{}.{}", self.path.trim_start_matches('/'), world.trust_domain)
    }

    /// Whether the status of its TrustDomain says so.
    ///
    /// # Errors
    /// With what it says instead.
    pub(crate) fn is_named(&self, object: &DynamicObject) -> Result<()> {
        let status = &object.data["status"];
        let said = (ready(status), conditions(status), status["remote"]["lastError"]["reason"].as_str());
        let expected = match self.taken {
            Some(conditions) => (("True", "Polled"), conditions.iter().copied().collect(), self.error),
            None => (("False", "NotBootstrapped"), BTreeSet::from(["PollFailing"]), self.error),
        };
        ensure!(said == expected, "{} is {said:?}, not {expected:?}", object.name_any());
        is_polled_in_time(&status["remote"]).with_context(|| object.name_any())
    }
}

/// Status and reason of `Ready`.
pub(crate) fn ready(status: &Value) -> (&str, &str) {
    let found = status["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
    let text = |member| found.and_then(|one| one[member].as_str()).unwrap_or_default();
    (text("status"), text("reason"))
}

/// The other conditions that are true.
fn conditions(status: &Value) -> BTreeSet<&str> {
    let all = status["conditions"].as_array().into_iter().flatten();
    let is_true = all.filter(|one| one["status"] == "True").filter_map(|one| one["type"].as_str());
    is_true.filter(|type_| !GENERAL.contains(type_)).collect()
}

fn is_polled_in_time(remote: &Value) -> Result<()> {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let next = time(&remote["nextPoll"]).context("is not polled again")?;
    let polled = [&remote["confirmedAt"], &remote["lastError"]["since"]].into_iter().filter_map(time).max();
    let polled = polled.context("was not polled")?;
    ensure!(next.duration_since(polled) >= SOONEST, "was polled at {polled}, and will be at {next}");
    ensure!(next.duration_since(Timestamp::now()) <= LATEST, "will only be polled at {next}");
    Ok(())
}

/// Runs a test of remote TrustDomains, and takes them away afterwards, and with them what is stored of them.
pub(crate) async fn among_remotes(name: &str, test: impl AsyncFnOnce(&World) -> Result<()>) {
    scenario(name, async |world| {
        world.install_endpoint(&std::env::var("KUBECONFIG")?).await?;
        let outcome = test(world).await;
        if outcome.is_err() && std::env::var_os(KEEP).is_some() {
            return outcome;
        }
        let ended = async {
            world.delete_remotes().await?;
            nothing_is_stored(world).await
        };
        let ended = ended.await;
        outcome.and(ended)
    })
    .await;
}

/// Waits until nothing is stored of the test's remote trust domains.
pub(crate) async fn nothing_is_stored(world: &World) -> Result<()> {
    until("what was stored is gone with its TrustDomains", DEFAULT_TIMEOUT, async || {
        let all = stored(world).await?;
        let left = all.iter().filter(|map| map.name_any().ends_with(&world.trust_domain)).count();
        Ok((left == 0).then_some(()))
    })
    .await
}

/// What is stored of remote trust domains, of all tests.
async fn stored(world: &World) -> Result<Vec<ConfigMap>> {
    let selected = ListParams::default().labels(remote_bundle::LABEL);
    Ok(world.cluster.api::<ConfigMap>(FEDERATION_NAMESPACE).list(&selected).await?.items)
}

/// Waits until the status of each says what it should.
async fn all_named(world: &World) -> Result<()> {
    until("each lie is named", DEFAULT_TIMEOUT, async || {
        let remotes = world.remotes().await?;
        let mut wrong = Vec::new();
        for lie in &LIES {
            let domain = lie.trust_domain(world);
            match remotes.iter().find(|remote| remote.name_any() == domain) {
                Some(remote) => wrong.extend(lie.is_named(remote).err().map(|error| format!("{error:#}"))),
                None => wrong.push(format!("{domain} is not there")),
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(Some(()))
    })
    .await
}

/// R50: twenty-five peers that lie at once, an honest one beside them, and a workload that trusts all of them. Each lie is named
/// in the status of its own TrustDomain; the honest peer, the workload's identity and the start of a new one are untouched. No
/// word of what they sent is repeated to people.
#[tokio::test]
async fn each_hostile_peer_is_named_and_touches_nobody_else() {
    among_remotes("hostile", async |world| {
        let hostile = world.hostile_endpoint().await?;
        let honest = format!("honest.{}", world.trust_domain);
        let all: Vec<String> = LIES.iter().map(|lie| lie.trust_domain(world)).chain([honest.clone()]).collect();
        let federates = format!("federatesWith: {}", json!(all));
        world.cluster.apply(&world.granting_yaml("", &federates)).await?;
        world.cluster.apply(&world.identity_yaml("holder", &federates)).await?;
        world.cluster.apply(&PodSpec::hold("holder").pod(&world.namespace)).await?;
        world.ready("holder").await?;
        let before = world.credential("holder").await?;

        let mut remotes = world.remote_at(&honest, &hostile.at("/honest/0", &honest));
        for lie in &LIES {
            let domain = lie.trust_domain(world);
            remotes.push_str(&world.remote_at(&domain, &hostile.at(lie.path, &domain)));
        }
        let begun = Instant::now();
        world.cluster.apply(&remotes).await?;
        world.domain_condition(&honest, "Ready", "True", "Polled").await?;
        all_named(world).await?;

        let file = format!("{FOLDER}/{honest}{TRUST_BUNDLE_SUFFIX}");
        world.file("holder", &file).await?;
        let after = world.credential("holder").await?;
        ensure!(before.serial == after.serial, "the pod's identity was replaced");
        world.cluster.apply(&PodSpec::hold("late").account("holder").pod(&world.namespace)).await?;
        world.ready("late").await?;
        ensure!(world.credential("late").await?.id == world.id("holder"));
        world.file("late", &file).await?;
        for lie in LIES.iter().filter(|lie| lie.taken.is_none()) {
            let file = format!("{FOLDER}/{}{TRUST_BUNDLE_SUFFIX}", lie.trust_domain(world));
            let read = world.exec("late", &["/countersign-demo", "cat", &file]).await?;
            ensure!(!read.success, "{} is trusted", lie.path);
        }
        // A hint of zero seconds makes nobody poll more often than every half a minute.
        let asked = world.asked_of_hostile_endpoint().await?;
        let most = 1 + begun.elapsed().as_secs() / SOONEST.as_secs().unsigned_abs();
        let often = *asked.get("/hint-zero").context("it was not asked for")?;
        ensure!(often as u64 <= most, "/hint-zero was polled {often} times in {:?}", begun.elapsed());
        not_repeated(world).await
    })
    .await;
}

/// The marker of hostile answers is nowhere but in the bundles that are kept.
async fn not_repeated(world: &World) -> Result<()> {
    let mut texts = Vec::new();
    let domains = world.cluster.trust_domains().await?.list(&ListParams::default()).await?;
    for domain in &domains {
        texts.push((format!("TrustDomain {}", domain.name_any()), serde_json::to_string(domain)?));
    }
    let identities = world.cluster.workload_identities(&world.namespace).await?.list(&ListParams::default()).await?;
    for identity in &identities {
        texts.push((format!("WorkloadIdentity {}", identity.name_any()), serde_json::to_string(identity)?));
    }
    for event in Api::<Event>::all(world.cluster.client.clone()).list(&ListParams::default()).await? {
        texts.push((format!("event {}", event.name_any()), serde_json::to_string(&event)?));
    }
    for mut map in world.cluster.api::<ConfigMap>(FEDERATION_NAMESPACE).list(&ListParams::default()).await? {
        let kept = map.data.as_mut().and_then(|data| data.remove(remote_bundle::KEY));
        if let Some(kept) = kept {
            texts.push((format!("the record in ConfigMap {}", map.name_any()), without_bundle(&kept)?));
        }
        texts.push((format!("ConfigMap {}", map.name_any()), serde_json::to_string(&map)?));
    }
    let operators = world.cluster.api::<Pod>(SYSTEM);
    for pod in world.product(OPERATOR).await? {
        let log = operators.logs(&pod.name_any(), &LogParams::default()).await?;
        ensure!(!log.is_empty(), "{} logged nothing", pod.name_any());
        texts.push((format!("the log of {}", pod.name_any()), log));
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{}:8080/proxy/metrics", pod.name_any());
        let metrics = world.cluster.client.request_text(http::Request::get(path).body(Vec::new())?).await?;
        texts.push((format!("the metrics of {}", pod.name_any()), metrics));
    }
    for pod in ["holder", "late"] {
        texts.push((format!("the log of the agent of {pod}"), world.logs(pod, AGENT).await?));
    }
    let marker = MARKER.to_lowercase();
    let found: Vec<_> = texts.iter().filter(|(_, text)| text.to_lowercase().contains(&marker)).collect();
    if let Some((place, text)) = found.first() {
        let at = text.to_lowercase().find(&marker).unwrap_or_default();
        let around: String = text.chars().skip(at.saturating_sub(200)).take(400).collect();
        bail!("what a peer sent is in {place} and {} more: …{around}…", found.len() - 1);
    }
    Ok(())
}

/// What is stored of a remote trust domain, without the bundle that is kept.
fn without_bundle(stored: &str) -> Result<String> {
    let mut record: Value = serde_json::from_str(stored)?;
    if let Some(kept) = record["kept"].as_object_mut() {
        kept.remove("document").context("a record without a document")?;
    }
    Ok(record.to_string())
}

/// R34: a certificate that is trusted, of an id that is not the configured one; and one that only its own authority vouches for.
#[tokio::test]
async fn a_bundle_endpoint_of_another_identity_is_named_and_not_believed() {
    among_remotes("other-id", async |world| {
        let hostile = world.hostile_endpoint().await?;
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.endpoint_serves().await?;
        let (own, node) = (&world.trust_domain, world.node_address().await?);
        let [other, public] = ["other", "public"].map(|name| format!("{name}.{own}"));
        let endpoint = format!(
            "url: 'https://{node}:{SPIFFE_PORT}/{own}', profile: https_spiffe, spiffeID: 'spiffe://{own}/countersign/other'"
        );
        world.cluster.apply(&world.remote_at(&other, &endpoint)).await?;
        world.cluster.apply(&world.remote_at(&public, &hostile.unverified("/honest/0", &public))).await?;
        for (domain, reason) in [(&other, "WrongEndpointId"), (&public, "UntrustedCertificate")] {
            // The endpoint may serve the certificate of an earlier trust domain until it has that of this one.
            until(&format!("{domain} fails by {reason}"), DEFAULT_TIMEOUT, async || {
                let object = world.cluster.trust_domains().await?.get(domain).await?;
                let said = object.data["status"]["remote"]["lastError"]["reason"].as_str();
                Ok((said == Some(reason)).then_some(()))
            })
            .await?;
            world.domain_condition(domain, "PollFailing", "True", "").await?;
        }
        let asked = world.asked_of_hostile_endpoint().await?;
        ensure!(asked.is_empty(), "a server was asked that nobody vouches for: {asked:?}");
        Ok(())
    })
    .await;
}
