//! What the status says of each outcome, and when and over what it is written.

use countersign_policy as policy;
use std::{sync::Arc, time::Duration};

use countersign_crds::{TrustDomain, WorkloadIdentity, WorkloadIdentityStatus};
use countersign_proto::inspect::v1::{IdentityReport, ReportResponse};
use futures::StreamExt;
use http::Method;
use jiff::Timestamp;
use kube::runtime::{controller::Action, reflector, watcher};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    AuthorityReadiness, Context, DEBOUNCE, Seen, StatusError, changed_foreign, counted_anew, federation, health,
    on_error, reconcile, status, write_status,
};
use crate::{
    authorities::Authorities,
    controllers::conditions::HealthKind,
    fake_api_server::{Asked, Questions, answering, leading, refusal},
    inspect::identity_counts::{Answer, ReplicaReports, Totals},
    metrics::Metrics,
};
use countersign_index::{IdentityKey, Index, PodRecord, SharedIndex};
use countersign_issuer::published::{Published, PublishedBundle};
use countersign_runtime::clock::Clock;

fn identity(name: &str, spec: &Value) -> WorkloadIdentity {
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 2,
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    }))
    .unwrap()
}

fn index() -> Index {
    let domain: TrustDomain = serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": "example.org", "uid": "td", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"authority": {}, "grants": [{"namespaces": {"matchNames": ["shop"]}, "paths": ["/ns/{namespace}/sa/*"]}]},
    }))
    .unwrap();
    let mut index = Index::default();
    index.apply_namespace("shop", [].into());
    index.apply_domain(policy::trust_domain(&domain, ""));
    for (name, injected) in [("a", true), ("b", false)] {
        let mut pod = PodRecord { injected, ..PodRecord::default() };
        pod.facts.namespace = "shop".to_owned();
        pod.facts.name = name.to_owned();
        pod.facts.uid = name.to_owned();
        pod.facts.service_account = "cart".to_owned();
        index.apply_pod(pod);
    }
    index
}

#[test]
fn the_status_of_each_outcome() {
    let selector = json!({"serviceAccounts": ["cart"]});
    let mut index = index();
    let outcomes = [
        ("admitted", json!({"trustDomain": "example.org", "selector": selector})),
        ("conflict", json!({"trustDomain": "example.org", "selector": selector})),
        ("no-domain", json!({"trustDomain": "other.org", "selector": selector})),
        ("not-granted", json!({"trustDomain": "example.org", "selector": selector, "path": "/admin"})),
        ("invalid", json!({"trustDomain": "example.org", "selector": selector, "path": "/a/{nope}"})),
    ];
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    for (name, spec) in &outcomes {
        index.apply_identity(policy::workload_identity(&identity(name, spec)));
    }
    let statuses: Vec<_> = outcomes
        .iter()
        .map(|(name, spec)| {
            let key = IdentityKey { namespace: "shop".to_owned(), name: (*name).to_owned() };
            let seen = Seen {
                usable: Some(AuthorityReadiness::Ready),
                totals: None,
                claims: None,
                published: &Published::default(),
                index: &SharedIndex::default(),
            };
            let status = status(&identity(name, spec), &index.identity(&key).unwrap(), &seen, now);
            let truths: Vec<_> = status.conditions.iter().map(|one| format!("{}={}", one.type_, one.status)).collect();
            let ready = &status.conditions[0];
            json!({
                "name": name, "conditions": truths.join(" "), "reason": ready.reason, "message": ready.message,
                "spiffeIDTemplate": status.spiffe_id_template, "pods": status.pods,
                "observedGeneration": status.observed_generation,
            })
        })
        .collect();
    insta::assert_yaml_snapshot!(statuses);
}

/// The status of an admitted identity with two pods, whose authority is so.
fn ready(usable: Option<AuthorityReadiness>) -> (String, String, String) {
    let spec = json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}});
    let mut index = index();
    index.apply_identity(policy::workload_identity(&identity("admitted", &spec)));
    let key = IdentityKey { namespace: "shop".to_owned(), name: "admitted".to_owned() };
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let seen =
        Seen { usable, totals: None, claims: None, published: &Published::default(), index: &SharedIndex::default() };
    let status = status(&identity("admitted", &spec), &index.identity(&key).unwrap(), &seen, now);
    let truths: Vec<_> = status.conditions.iter().map(|one| format!("{}={}", one.type_, one.status)).collect();
    (truths.join(" "), status.conditions[0].reason.clone(), status.conditions[0].message.clone())
}

// It may come at any time, as a TrustDomain may.
#[test]
fn an_identity_whose_namespace_is_not_known_waits() {
    let spec = json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}});
    let mut index = index();
    index.remove_namespace("shop");
    index.apply_identity(policy::workload_identity(&identity("early", &spec)));
    let key = IdentityKey { namespace: "shop".to_owned(), name: "early".to_owned() };
    let health = health(&index.identity(&key).unwrap(), Some(&AuthorityReadiness::Ready));
    assert_eq!((health.kind, health.reason.name()), (HealthKind::Reconciling, "NamespaceUnknown"));
    assert!(health.message.starts_with("namespace shop is not known here"), "{}", health.message);
}

#[test]
fn an_identity_is_ready_only_where_its_domains_authority_can_be_used() {
    assert_eq!(
        ready(Some(AuthorityReadiness::Ready)).0,
        "Ready=True Reconciling=False Stalled=False CredentialsRefreshable=True"
    );
    let (truths, reason, _) = ready(Some(AuthorityReadiness::NotYet));
    assert_eq!(
        (truths.as_str(), reason.as_str()),
        ("Ready=False Reconciling=True Stalled=False CredentialsRefreshable=True", "AuthorityNotReady")
    );
    let (truths, reason, message) = ready(Some(AuthorityReadiness::Stalled("Secret x is damaged".to_owned())));
    assert_eq!(
        (truths.as_str(), reason.as_str()),
        ("Ready=False Reconciling=False Stalled=True CredentialsRefreshable=True", "AuthorityStalled")
    );
    assert!(message.contains("TrustDomain example.org") && message.contains("Secret x is damaged"), "{message}");
    assert_ne!(ready(None).0, ready(Some(AuthorityReadiness::Ready)).0);
}

#[test]
fn pods_that_never_refresh_are_named_and_the_identity_stays_ready() {
    let spec = json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}});
    let mut index = index();
    index.apply_identity(policy::workload_identity(&identity("admitted", &spec)));
    let key = IdentityKey { namespace: "shop".to_owned(), name: "admitted".to_owned() };
    let mut object = identity("admitted", &spec);
    let mut put = |names: &[&str], second: i64, parts: &[&str]| {
        for name in names {
            let mut pod = PodRecord { injected: true, ..PodRecord::default() };
            (pod.facts.namespace, pod.facts.service_account) = ("shop".to_owned(), "cart".to_owned());
            (pod.facts.name, pod.facts.uid) = ((*name).to_owned(), (*name).to_owned());
            pod.never_refreshes = parts.iter().map(|&part| part.to_owned()).collect();
            index.apply_pod(pod);
        }
        let seen = Seen {
            usable: Some(AuthorityReadiness::Ready),
            totals: None,
            claims: None,
            published: &Published::default(),
            index: &SharedIndex::default(),
        };
        let now = Timestamp::from_second(second).unwrap();
        let status = status(&object, &index.identity(&key).unwrap(), &seen, now);
        assert_eq!(status.conditions[0].status, "True", "it is ready in any case");
        let condition = status.conditions.iter().find(|one| one.type_ == "CredentialsRefreshable").unwrap().clone();
        object.status = Some(status);
        condition
    };
    let well = put(&[], 100, &[]);
    assert_eq!((well.status.as_str(), well.reason.as_str()), ("True", "NoSubPathMount"));
    let one = put(&["b"], 200, &["app"]);
    assert_eq!((one.status.as_str(), one.reason.as_str(), one.observed_generation), ("False", "SubPathMount", Some(2)));
    assert!(one.message.starts_with("1 of 2 pods ") && one.message.contains(": b; read it"), "{}", one.message);
    let many = put(&["c", "d", "e"], 300, &["app"]);
    assert!(
        many.message.contains("4 of 5 pods ") && many.message.contains(": b, c, d and 1 more; "),
        "{}",
        many.message
    );
    assert_eq!(many.last_transition_time, one.last_transition_time);
    let mended = put(&["b", "c", "d", "e"], 400, &[]);
    assert_eq!((mended.status.as_str(), mended.last_transition_time.0.as_second()), ("True", 400));
}

#[test]
fn of_an_identity_that_no_pod_may_get_there_is_nothing_to_refresh() {
    let spec = json!({"trustDomain": "other.org", "selector": {"serviceAccounts": ["cart"]}});
    let mut index = index();
    index.apply_identity(policy::workload_identity(&identity("no-domain", &spec)));
    let key = IdentityKey { namespace: "shop".to_owned(), name: "no-domain".to_owned() };
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let seen = Seen {
        usable: None,
        totals: None,
        claims: None,
        published: &Published::default(),
        index: &SharedIndex::default(),
    };
    let status = status(&identity("no-domain", &spec), &index.identity(&key).unwrap(), &seen, now);
    assert!(status.conditions.iter().all(|one| one.type_ != "CredentialsRefreshable"), "{:?}", status.conditions);
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// As the API server stores it: version 7.
fn read() -> WorkloadIdentity {
    let spec = json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}});
    let mut identity = identity("admitted", &spec);
    identity.metadata.resource_version = Some("7".to_owned());
    identity
}

/// What a leading replica works with at that time, beside an API server that answers so.
fn context(
    now: Timestamp,
    answer: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static,
) -> (Arc<Context>, Questions) {
    let (client, questions) = answering(answer);
    let clock = Clock::new(move || now);
    let mut index = index();
    index.apply_identity(policy::workload_identity(&read()));
    let index = SharedIndex::new(index);
    let context = Context {
        client,
        authorities: Authorities::new("cluster".to_owned(), clock.clone()),
        index,
        counted: watch::channel(None).1,
        leadership: leading(&clock),
        clock,
        metrics: Arc::new(Metrics::new()),
    };
    (Arc::new(context), questions)
}

fn taken(_: &Asked) -> (u16, Value) {
    (200, serde_json::to_value(read()).unwrap())
}

#[tokio::test]
async fn a_status_is_written_over_the_version_that_was_read() {
    let (context, questions) = context(at(0), taken);
    reconcile(Arc::new(read()), &context).await.unwrap();
    let [asked] = <[Asked; 1]>::try_from(questions.all()).unwrap();
    assert_eq!(asked.method, Method::PATCH);
    assert!(asked.path.ends_with("/namespaces/shop/workloadidentities/admitted/status"), "{}", asked.path);
    assert_eq!(
        (&asked.body["metadata"]["resourceVersion"], &asked.body["metadata"]["uid"]),
        (&json!("7"), &json!("admitted"))
    );
}

// A status is applied by one field manager, so the API server removes what an apply no longer contains.
#[tokio::test]
async fn conditions_under_the_names_of_an_earlier_release_are_dropped() {
    let mut stored = read();
    let old = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": "OfAnEarlierRelease", "message": "",
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    stored.status =
        serde_json::from_value(json!({"conditions": [old("Ready"), old("Counted"), old("Refreshing")]})).unwrap();
    let (context, questions) = context(at(0), taken);
    context.index.update(|index| index.apply_identity(policy::workload_identity(&stored)));
    reconcile(Arc::new(stored), &context).await.unwrap();
    let [asked] = <[Asked; 1]>::try_from(questions.all()).unwrap();
    let conditions = asked.body["status"]["conditions"].as_array().unwrap();
    let types: Vec<_> = conditions.iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["Ready", "Reconciling", "Stalled", "CredentialsRefreshable"]);
}

#[tokio::test]
async fn a_status_over_another_version_is_not_forced_but_looked_at_again() {
    let (context, questions) = context(at(0), |_| refusal(409, "Conflict"));
    let error = reconcile(Arc::new(read()), &context).await.unwrap_err();
    assert!(matches!(error, StatusError::Changed { .. }), "{error}");
    assert_eq!(questions.methods(), [Method::PATCH], "tried once, not over what another wrote");
    assert_eq!(on_error(Arc::new(read()), &error, context), Action::requeue(DEBOUNCE));
}

#[tokio::test]
async fn a_replica_that_leads_no_longer_writes_no_status() {
    let (context, questions) = context(at(0), taken);
    let key = IdentityKey { namespace: "shop".to_owned(), name: "admitted".to_owned() };
    context.leadership.lead_for(Duration::ZERO);
    let before = reconcile(Arc::new(read()), &context).await;
    assert!(matches!(before, Err(StatusError::NotLeading(_))), "{before:?}");
    // Its time may end between the look and the write.
    let between = write_status(&read(), key, WorkloadIdentityStatus::default(), &context).await;
    assert!(matches!(between, Err(StatusError::NotLeading(_))), "{between:?}");
    assert!(questions.all().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn a_status_is_written_only_when_it_means_something_else() {
    let (first, questions) = context(at(0), taken);
    reconcile(Arc::new(read()), &first).await.unwrap();
    let mut written = read();
    written.status = serde_json::from_value(questions.all()[0].body["status"].clone()).unwrap();
    let (later, questions) = context(at(3_000), taken);
    later.index.update(|index| index.apply_identity(policy::workload_identity(&written.clone())));
    reconcile(Arc::new(written.clone()), &later).await.unwrap();
    assert!(questions.all().is_empty(), "the same an hour later");
    later.index.update(|index| index.remove_pod("b"));
    reconcile(Arc::new(written), &later).await.unwrap();
    assert_eq!(questions.methods(), [Method::PATCH], "another number of pods");
}

// An unrecorded claim is the youngest, and a rival may come at any time.
#[tokio::test]
async fn a_claim_that_is_not_recorded_is_reason_enough_to_write() {
    let (first, questions) = context(at(0), taken);
    reconcile(Arc::new(read()), &first).await.unwrap();
    let mut written = read();
    let mut status = questions.all()[0].body["status"].clone();
    let claims = status["claims"].take();
    assert_eq!(claims, json!([{"kind": "Path", "value": "/ns/shop/sa/cart", "since": "2027-01-15T08:00:00.000000Z"}]));
    status["claims"] = json!([]);
    written.status = serde_json::from_value(status).unwrap();
    let (later, questions) = context(at(5), taken);
    later.index.update(|index| index.apply_identity(policy::workload_identity(&written.clone())));
    reconcile(Arc::new(written), &later).await.unwrap();
    let [asked] = <[Asked; 1]>::try_from(questions.all()).unwrap();
    assert_eq!(asked.body["status"]["claims"][0]["since"], "2027-01-15T08:00:05.000000Z");
}

// Else a record that the index does not know yet would be written over with a younger one.
#[tokio::test]
async fn nothing_is_written_of_an_object_of_whose_record_the_index_does_not_know_yet() {
    let (context, questions) = context(at(0), taken);
    let mut newer = read();
    newer.status = serde_json::from_value(json!({"claims": []})).unwrap();
    assert_eq!(reconcile(Arc::new(newer), &context).await.unwrap(), Action::requeue(DEBOUNCE));
    assert!(questions.all().is_empty());
}

/// What a round finds where one replica serves so many pods of each identity.
fn totals(served: &[(&str, u32)]) -> Arc<Totals> {
    let identities = served.iter().map(|(name, pods)| IdentityReport {
        namespace: "shop".to_owned(),
        name: (*name).to_owned(),
        pods: *pods,
        ..IdentityReport::default()
    });
    let report = ReportResponse { identities: identities.collect(), ..ReportResponse::default() };
    Arc::new(ReplicaReports::default().enter(vec![Answer { replica: "a".to_owned(), report: Some(report) }]))
}

#[tokio::test]
async fn a_round_of_counting_wakes_those_of_whom_it_says_something_new() {
    let (store, mut writer) = reflector::store::<WorkloadIdentity>();
    for name in ["x", "y", "z"] {
        let spec = json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}});
        writer.apply_watcher_event(&watcher::Event::Apply(identity(name, &spec)));
    }
    let (counts, counted) = watch::channel(None);
    let mut woken = std::pin::pin!(counted_anew(counted, store));
    let rounds: [(Option<Arc<Totals>>, &[&str]); 5] = [
        (Some(totals(&[("x", 3), ("y", 1)])), &["x", "y", "z"]),
        (Some(totals(&[("x", 3), ("y", 1)])), &[]),
        (Some(totals(&[("x", 3), ("y", 2)])), &["y"]),
        (None, &[]),
        (Some(totals(&[("x", 3), ("y", 2)])), &["x", "y", "z"]),
    ];
    for (round, (totals, expected)) in rounds.into_iter().enumerate() {
        counts.send_replace(totals);
        let mut names: Vec<_> = woken.next().await.unwrap().into_iter().map(|one| one.name).collect();
        names.sort();
        assert_eq!(names, expected, "round {round}");
    }
}

// Their sums may be the same.
#[tokio::test]
async fn a_round_wakes_the_identities_of_namespaces_in_which_other_pods_have_no_stream() {
    let (store, mut writer) = reflector::store::<WorkloadIdentity>();
    let spec = json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}});
    writer.apply_watcher_event(&watcher::Event::Apply(identity("x", &spec)));
    let mut elsewhere = identity("elsewhere", &spec);
    elsewhere.metadata.namespace = Some("till".to_owned());
    writer.apply_watcher_event(&watcher::Event::Apply(elsewhere));
    let (counts, counted) = watch::channel(None);
    let mut woken = std::pin::pin!(counted_anew(counted, store));
    let round = |unconnected: Option<&[&str]>| {
        let mut totals = Totals::clone(&totals(&[("x", 1)]));
        totals.unconnected =
            unconnected.map(|uids| uids.iter().map(|&uid| (uid.to_owned(), "shop".to_owned())).collect());
        Some(Arc::new(totals))
    };
    let rounds: [(Option<&[&str]>, usize); 7] = [
        (Some(&["a"]), 2),
        (Some(&["a"]), 0),
        (Some(&["b"]), 1),
        (None, 0),
        (Some(&["b"]), 0),
        (None, 0),
        (Some(&[]), 1),
    ];
    for (number, (unconnected, expected)) in rounds.into_iter().enumerate() {
        counts.send_replace(round(unconnected));
        assert_eq!(woken.next().await.unwrap().len(), expected, "round {number}");
    }
}

/// The condition `Federated` of an identity that names `foreign`, where these remote TrustDomains admit its namespace and these
/// bundles, of so many KiB, are handed out: status, reason and message.
fn federated(foreign: &[&str], remotes: &[&str], bundles: &[(&str, usize)]) -> Option<(String, String, String)> {
    let mut index = index();
    let domain: TrustDomain = serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": "example.org", "uid": "td", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"authority": {}, "grants": [{
            "namespaces": {"matchNames": ["shop"]}, "paths": ["/ns/{namespace}/sa/*"], "federatesWith": ["a.org", "b.org"],
        }]},
    }))
    .unwrap();
    index.apply_domain(policy::trust_domain(&domain, ""));
    for name in remotes {
        let remote: TrustDomain = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": {"name": name, "uid": name},
            "spec": {"remote": {
                "namespaces": {"matchNames": ["shop"]}, "endpoint": {"url": "https://a.org/", "profile": "https_web"},
            }},
        }))
        .unwrap();
        index.apply_domain(policy::trust_domain(&remote, ""));
    }
    let spec =
        json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}, "federatesWith": foreign});
    index.apply_identity(policy::workload_identity(&identity("named", &spec)));
    let key = IdentityKey { namespace: "shop".to_owned(), name: "named".to_owned() };
    let bundles = bundles.iter().map(|(name, kib)| {
        let bundle = PublishedBundle { document: vec![b' '; kib * 1024].into(), sequence: 1 };
        (name.parse().unwrap(), Arc::new(bundle))
    });
    let published = Published { bundles: bundles.collect(), ..Published::default() };
    let condition = federation::condition(&index.identity(&key).unwrap(), &published, Some(2), &[], at(0))?;
    Some((condition.status, condition.reason, condition.message))
}

/// R50: whose bundle is missing, and why, is told for each foreign trust domain.
#[test]
fn what_keeps_a_foreign_bundle_away_is_told_where_its_user_looks() {
    let told = |foreign: &[&str], remotes: &[&str], bundles: &[(&str, usize)]| {
        let (status, reason, _) = federated(foreign, remotes, bundles).unwrap();
        (status, reason)
    };
    let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(federated(&[], &["a.org"], &[("a.org", 1)]), None);
    assert_eq!(told(&["a.org"], &["a.org"], &[("a.org", 1)]), is("True", "Complete"));
    assert_eq!(told(&["a.org"], &["a.org"], &[]), is("False", "NoBundle"));
    assert_eq!(told(&["a.org"], &[], &[("a.org", 1)]), is("False", "NoRemoteTrustDomain"));
    assert_eq!(told(&["c.org"], &["c.org"], &[("c.org", 1)]), is("False", "FederationNotGranted"));
    let both = ["a.org", "b.org"];
    assert_eq!(told(&both, &both, &[("a.org", 300), ("b.org", 200)]), is("True", "Complete"));
    let (_, reason, message) = federated(&both, &both, &[("a.org", 400), ("b.org", 200)]).unwrap();
    assert_eq!(reason, "BundlesTooLong");
    assert!(message.starts_with("1 of 2 missing: a.org: left out"), "{message}");
}

/// Their status is decided by what is published, so it is decided again when that changes, and not when the bundle is merely known.
#[tokio::test]
async fn users_of_a_foreign_bundle_are_looked_at_again_when_it_is_published() {
    let mut index = index();
    let spec =
        json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}, "federatesWith": ["a.org"]});
    index.apply_identity(policy::workload_identity(&identity("named", &spec)));
    let (sender, published) = watch::channel(Arc::<Published>::default());
    let mut changed = std::pin::pin!(changed_foreign(published, SharedIndex::new(index)));
    let mut publish = async |sequence: Option<u64>| {
        let bundle = |sequence| Arc::new(PublishedBundle { document: vec![b' '; 8].into(), sequence });
        let bundles = sequence.map(|sequence| ("a.org".parse().unwrap(), bundle(sequence)));
        sender.send_replace(Arc::new(Published { bundles: bundles.into_iter().collect(), ..Published::default() }));
        changed.next().await.unwrap().into_iter().map(|reference| reference.name).collect::<Vec<_>>()
    };
    assert_eq!(publish(Some(1)).await, ["named"]);
    assert!(publish(Some(1)).await.is_empty(), "something else was published");
    assert_eq!(publish(Some(2)).await, ["named"], "another bundle");
    assert_eq!(publish(None).await, ["named"], "it was withdrawn");
}
