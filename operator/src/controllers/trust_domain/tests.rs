//! What is due for a journal, what the status says of it, and over what both are written.

use countersign_policy as policy;
use std::{
    future::ready,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use countersign_contract::objects::journal::SECRET_TYPE;
use countersign_core::journal::{
    AuthorityMaker, AuthorityRequest, Format, Journal, JournalError, Kind, LocalMaker, Making, Receipts,
    RotationRequests, next,
};
use countersign_core::key::PrivateKey;
use countersign_crds::{AuthorityKind, TrustDomain, TrustDomainStatus};
use countersign_proto::inspect::v1::{DomainReport, ReportResponse, SessionReport};
use futures::FutureExt as _;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Condition};
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use parking_lot::Mutex;

use super::{
    Context, ReconcileError,
    journal::{Due, decide},
    on_error, reconcile, requests, separation,
    status::{Assessment, status},
};
use crate::{
    authorities::{
        Authorities,
        journal_cache::Problem,
        store::{JournalStore, StoreError},
    },
    fake_api_server::{Asked, Questions, answering, leading, refusal},
    federation::{RemoteBundles, cluster_trust_bundles::ClusterTrustBundles, store::BundleStore},
    inspect::identity_counts::{Answer, ReplicaReports},
    metrics::Metrics,
};
use countersign_index::{DomainVerdict, Index, PodRecord, SharedIndex};
use countersign_runtime::clock::Clock;
use countersign_runtime::leader::Leadership;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn domain() -> TrustDomain {
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": "example.org", "uid": "u", "generation": 3},
        "spec": {"authority": {}},
    }))
    .unwrap()
}

/// Ids that tests can compare; the keys are real.
#[derive(Default)]
struct Numbered(AtomicU32);

impl AuthorityMaker for Numbered {
    fn make(&self, request: AuthorityRequest) -> Making<'_> {
        let id = format!("{:032x}", self.0.fetch_add(1, Ordering::Relaxed) + 1);
        let made = PrivateKey::generate(request.key_type).map_err(JournalError::from);
        Box::pin(ready(made.and_then(|key| request.with_stored_key(id, key))))
    }
}

fn facts_of(domain: &TrustDomain) -> super::AuthorityConfig {
    policy::authority_config(domain, "example.org".parse().unwrap())
}

fn journal(now: Timestamp) -> Journal {
    let facts = facts_of(&domain());
    let maker = Numbered::default();
    let made = Journal::create("cluster", Some(&facts.trust_domain), &facts.policy, &maker, now);
    made.now_or_never().expect("it is made here").unwrap()
}

fn missing() -> Problem {
    Problem::Missing { secret: "trust-domain.example.org".to_owned(), published: 5 }
}

#[test]
fn a_journal_is_made_once_advanced_in_time_and_never_replaced() {
    let (facts, none) = (facts_of(&domain()), Receipts::default());
    assert!(matches!(decide(Ok(None), false, &facts, &none, at(0)), Due::Create));
    assert!(matches!(decide(Ok(Some(journal(at(0)))), false, &facts, &none, at(60)), Due::Nothing(_)));
    let half = decide(Ok(Some(journal(at(0)))), false, &facts, &none, at(23 * 3600));
    assert!(matches!(half, Due::Advance(_, plan) if plan.steps.len() == 4));
    let adopting = decide(Ok(Some(journal(at(0)))), true, &facts, &none, at(60));
    assert!(matches!(adopting, Due::Advance(_, plan) if plan.is_empty()), "the Secret gets its new owner");
    let damaged = JournalError::Damaged { what: "checksum".to_owned() };
    let unusable = Problem::Unusable { secret: "s".to_owned(), error: damaged };
    for problem in [missing(), unusable] {
        assert!(matches!(decide(Err(problem), true, &facts, &none, at(23 * 3600)), Due::Problem(_)));
    }
}

#[test]
fn the_status_of_a_signing_domain() {
    let facts = facts_of(&domain());
    let mut status = status(&domain(), &Assessment::Signing { journal: journal(at(0)), facts, acks: None }, at(60));
    // Each journal here has new keys.
    for authority in &mut status.authorities {
        assert_eq!(authority.subject_key_id.is_some(), authority.kind == AuthorityKind::X509);
        authority.subject_key_id = authority.subject_key_id.take().map(|_| "of the certificate".to_owned());
    }
    insta::assert_yaml_snapshot!(status);
}

#[test]
fn the_status_of_a_damaged_journal_is_stalled_and_keeps_what_was_published() {
    let mut domain = domain();
    let signing = Assessment::Signing { journal: journal(at(0)), facts: facts_of(&domain), acks: None };
    domain.status = Some(status(&domain, &signing, at(60)));
    let damaged = JournalError::Damaged { what: "the checksum does not fit".to_owned() };
    let problem = Problem::Unusable { secret: "trust-domain.example.org".to_owned(), error: damaged };
    let facts = facts_of(&domain);
    assert!(facts.published_sequence.is_some());
    let stalled = status(&domain, &Assessment::Problem { problem, facts }, at(120));
    assert_eq!(stalled.bundle, domain.status.unwrap().bundle);
    insta::assert_yaml_snapshot!(stalled.conditions);
}

#[test]
fn the_status_of_a_duplicate_and_of_an_invalid_domain_is_stalled() {
    let duplicate = Assessment::Duplicate { of: "first".to_owned(), trust_domain: "example.org".to_owned() };
    let invalid = Assessment::Invalid("spec.grants[0].paths: nonsense".to_owned());
    let conditions = [duplicate, invalid].map(|assessment| status(&domain(), &assessment, at(0)).conditions);
    let told: Vec<_> = conditions.iter().flatten().filter(|one| one.type_ != "Reconciling").collect();
    insta::assert_yaml_snapshot!(told);
}

#[test]
fn a_status_is_written_only_when_it_means_something_else() {
    let mut domain = domain();
    let journal = journal(at(0));
    let assessment =
        |domain: &TrustDomain| Assessment::Signing { journal: journal.clone(), facts: facts_of(domain), acks: None };
    let first = status(&domain, &assessment(&domain), at(60));
    domain.status = Some(first.clone());
    let again = status(&domain, &assessment(&domain), at(3_000));
    assert_eq!(again, first);
}

/// A TrustDomain with these grants to namespaces that a label selects, and the condition that says whether they keep these apart.
fn separated(grants: &Value, cluster: &str, now: Timestamp, old: Option<Condition>) -> Condition {
    let mut domain = domain();
    domain.spec.grants = serde_json::from_value(grants.clone()).unwrap();
    domain.status = old.map(|old| TrustDomainStatus { conditions: vec![old], ..TrustDomainStatus::default() });
    let mut index = Index::default();
    index.apply_domain(policy::trust_domain(&domain, cluster));
    let Some(DomainVerdict::Accepted(spec)) = index.domain("example.org") else { panic!("not accepted: {grants}") };
    separation::condition(&spec, &domain, now)
}

fn grant(paths: &[&str], dns_names: &[&str]) -> Value {
    json!({"namespaces": {"matchLabels": {"team": "shop"}}, "paths": paths, "dnsNames": dns_names})
}

// R32, R48: admission refuses such grants now; what was stored before goes on working and is told.
#[test]
fn stored_grants_that_do_not_keep_namespaces_apart_are_honoured_and_told() {
    let apart = json!([grant(&["/ns/{namespace}/**"], &["*.{namespace}.svc"])]);
    let good = separated(&apart, "", at(5), None);
    assert_eq!((good.status.as_str(), good.reason.as_str()), ("True", "Separated"));
    assert_eq!((good.type_.as_str(), good.observed_generation), ("NamespacesSeparated", Some(3)));

    let overlapping = json!([grant(&["/{namespace}/**"], &["api.example.org"]), grant(&["/ns/{namespace}/**"], &[])]);
    let found = separated(&overlapping, "", at(9), Some(good));
    assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "OverlappingGrants"));
    assert_eq!(found.last_transition_time.0, at(9));
    for part in [
        "spec.grants[0].paths[0] (/{namespace}/**) and spec.grants[1].paths[0] (/ns/{namespace}/**)",
        "namespace ns can claim \"/ns/shop/x\"",
        "spec.grants[0].dnsNames[0] (api.example.org) has no label {namespace}",
        "these grants are honoured",
    ] {
        assert!(found.message.contains(part), "{part}: {}", found.message);
    }
    assert_eq!(separated(&overlapping, "", at(20), Some(found.clone())), found, "nothing changed, nothing is written");

    let names = separated(&json!([grant(&["/ns/{namespace}/**"], &["api.example.org"])]), "", at(9), None);
    assert_eq!((names.status.as_str(), names.reason.as_str()), ("False", "UnseparatedDNSNames"));
}

// Admission does not know it.
#[test]
fn what_overlaps_by_the_clusters_name_is_told() {
    let grants = json!([grant(&["/{cluster}/*/{namespace}"], &[]), grant(&["/eu/{namespace}/**"], &[])]);
    assert_eq!(separated(&grants, "eu", at(0), None).reason, "OverlappingGrants");
    for other in ["us", ""] {
        assert_eq!(separated(&grants, other, at(0), None).reason, "Separated", "{other}");
    }
}

#[test]
fn a_few_of_many_overlaps_are_told_in_the_status() {
    let paths: Vec<_> =
        (0..6).flat_map(|i| [format!("/{{namespace}}/{i}/*"), format!("/*/{i}/{{namespace}}")]).collect();
    let paths: Vec<_> = paths.iter().map(String::as_str).collect();
    let message = separated(&json!([grant(&paths, &[])]), "", at(0), None).message;
    assert_eq!(message.matches("do not keep namespaces apart").count(), 4, "{message}");
    assert!(message.contains("there are more of this kind"));
}

/// An API server with a journal in version 7 and its TrustDomain in version 8, at a time when a successor is due.
struct Server {
    context: Arc<Context>,
    questions: Questions,
}

impl Server {
    /// One that answers as `answer` says, and where that says nothing with what is stored.
    fn new(answer: impl Fn(&Asked, &Leadership) -> Option<(u16, Value)> + Send + Sync + 'static) -> Self {
        let clock = Clock::new(|| at(23 * 3600));
        let leadership = leading(&clock);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
            "metadata": {
                "name": "trust-domain.example.org", "resourceVersion": "7",
                "annotations": {"countersign.dev/trust-domain-uid": "u"},
            },
            "data": {"journal": ByteString(journal(at(0)).to_bytes().unwrap().to_vec())},
        });
        let told = leadership.clone();
        let (client, questions) = answering(move |asked| {
            let stored = if asked.path.contains("/secrets") { &secret } else { &stored_domain() };
            answer(asked, &told).unwrap_or_else(|| (200, stored.clone()))
        });
        let index = SharedIndex::new(Index::default());
        index.update(|index| index.apply_domain(policy::trust_domain(&domain(), "")));
        let context = Context {
            authorities: Authorities::new("cluster".to_owned(), clock.clone()),
            index,
            remote_bundles: RemoteBundles::new(clock.clone()),
            bundle_store: BundleStore::new(client.clone(), "countersign-federation"),
            trust_bundles: ClusterTrustBundles::new(client.clone()),
            written_bundles: Mutex::default(),
            journals: JournalStore::new(client.clone(), "countersign-authorities", Format::V1),
            counted: tokio::sync::watch::channel(None).1,
            maker: Arc::new(LocalMaker),
            client,
            cluster: "cluster".to_owned(),
            leadership,
            clock,
            metrics: Arc::new(Metrics::new()),
        };
        Self { context: Arc::new(context), questions }
    }

    /// The agent of pod `shop/cart-0` reports this sequence, which is higher than it was sent.
    fn with_claim(mut self, claimed_sequence: u64) -> Self {
        let mut pod = PodRecord::default();
        (pod.facts.namespace, pod.facts.name, pod.facts.uid) =
            ("shop".to_owned(), "cart-0".to_owned(), "p1".to_owned());
        self.context.index.update(|index| index.apply_pod(pod));
        let session =
            SessionReport { pod_uid: "p1".to_owned(), sequence: 5, claimed_sequence, ..SessionReport::default() };
        let trust_domain = "example.org".to_owned();
        let domains = vec![DomainReport { trust_domain, published_sequence: 5, sessions: vec![session] }];
        let report = ReportResponse { domains, tells_domains: true, ..ReportResponse::default() };
        let totals = ReplicaReports::default().enter(vec![Answer { replica: "a".to_owned(), report: Some(report) }]);
        let context = Arc::get_mut(&mut self.context).unwrap();
        context.counted = tokio::sync::watch::channel(Some(Arc::new(totals))).1;
        self
    }

    async fn reconcile(&self) -> Result<Action, ReconcileError> {
        let domain: TrustDomain = serde_json::from_value(stored_domain()).unwrap();
        reconcile(Arc::new(domain), &self.context).await
    }
}

fn stored_domain() -> Value {
    static DOMAIN: OnceLock<Value> = OnceLock::new();
    let stored = || {
        let mut domain = domain();
        domain.metadata.resource_version = Some("8".to_owned());
        serde_json::to_value(domain).unwrap()
    };
    DOMAIN.get_or_init(stored).clone()
}

#[tokio::test]
async fn a_journal_and_a_status_are_written_over_the_versions_that_were_read() {
    let server = Server::new(|_, _| None);
    server.reconcile().await.unwrap();
    let asked = server.questions.all();
    assert_eq!(server.questions.methods(), [Method::GET, Method::PUT, Method::PATCH]);
    assert_eq!(asked[1].body["metadata"]["resourceVersion"], "7", "the journal's");
    assert!(asked[1].body["data"]["journal"].is_string());
    assert!(asked[2].path.ends_with("/trustdomains/example.org/status"), "{}", asked[2].path);
    let conditions = asked[2].body["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "NamespacesSeparated"), "{conditions:?}");
    assert_eq!(
        (&asked[2].body["metadata"]["resourceVersion"], &asked[2].body["metadata"]["uid"]),
        (&json!("8"), &json!("u"))
    );
}

#[tokio::test]
async fn what_another_changed_meanwhile_is_not_overwritten_but_looked_at_again() {
    let again = Action::requeue(Duration::from_millis(200));
    for (fails, sent) in [(Method::PUT, 2), (Method::PATCH, 3)] {
        let which = fails.clone();
        let server = Server::new(move |asked, _| (asked.method == which).then(|| refusal(409, "Conflict")));
        let error = server.reconcile().await.unwrap_err();
        let expected = match fails {
            Method::PUT => matches!(error, ReconcileError::Store(StoreError::Conflict { .. })),
            _ => matches!(error, ReconcileError::Changed { .. }),
        };
        assert!(expected, "{fails}: {error}");
        assert_eq!(server.questions.all().len(), sent, "{fails}: tried once, and nothing after it");
        assert_eq!(on_error(Arc::new(domain()), &error, server.context), again);
    }
}

// Its time may end at any moment: before anything, while the journal is read, while it is written.
#[tokio::test]
async fn a_replica_that_leads_no_longer_writes_neither_journal_nor_status() {
    for (ends, sent) in
        [(None, vec![]), (Some(Method::GET), vec![Method::GET]), (Some(Method::PUT), vec![Method::GET, Method::PUT])]
    {
        let when = ends.clone();
        let server = Server::new(move |asked, leadership| {
            if Some(&asked.method) == when.as_ref() {
                leadership.lead_for(Duration::ZERO);
            }
            None
        });
        if ends.is_none() {
            server.context.leadership.lead_for(Duration::ZERO);
        }
        let error = server.reconcile().await.unwrap_err();
        assert!(matches!(error, ReconcileError::NotLeading(_)), "{ends:?}: {error}");
        assert_eq!(server.questions.methods(), sent, "{ends:?}");
    }
}

// After a restore from an old backup. The agent may also lie, or have got what another replica published a moment ago.
#[tokio::test]
async fn an_agent_that_reports_a_newer_bundle_than_the_journal_has_leads_to_a_condition_and_nothing_else() {
    let newest = u64::try_from(at(23 * 3600).as_millisecond()).unwrap();
    for (claimed, status) in [(newest, "True"), (u64::MAX, "False")] {
        let server = Server::new(|_, _| None).with_claim(claimed);
        server.reconcile().await.unwrap();
        assert_eq!(server.questions.methods(), [Method::GET, Method::PUT, Method::PATCH], "the successor was due");
        let written = server.questions.all()[2].body["status"].clone();
        let conditions = written["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|one| one["type"] == "BundleSequenceConsistent").unwrap();
        assert_eq!(found["status"], status, "{found}");
        let names_it = found["message"].as_str().unwrap().contains("18446744073709551615: shop/cart-0.");
        assert_eq!(names_it, status == "False", "{found}");
        assert_eq!(written["bundle"]["sequence"], newest);
        assert_eq!(written["bundle"]["acknowledged"], "0/1");
    }
}

/// A TrustDomain with this `authority`, and the conditions of its requests after `journal` at a time.
fn requested(authority: Value, old: TrustDomainStatus, journal: &Journal, now: Timestamp) -> TrustDomainStatus {
    let mut domain = domain();
    domain.spec.authority = Some(serde_json::from_value(authority).unwrap());
    domain.status = Some(old);
    let facts = facts_of(&domain);
    let mut status =
        status(&domain, &Assessment::Signing { journal: journal.clone(), facts: facts.clone(), acks: None }, now);
    status.conditions = requests::conditions(&domain, journal, &facts, &status.removed, now);
    status
}

fn told(status: &TrustDomainStatus) -> Vec<(&str, &str, &str)> {
    status.conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_str())).collect()
}

#[test]
fn a_requested_rotation_waits_names_what_signs_and_is_complete() {
    let (journal, none) = (journal(at(0)), TrustDomainStatus::default);
    let rotation = |after: Timestamp| json!({"rotation": {"after": after.to_string()}});
    let scheduled = requested(rotation(at(100)), none(), &journal, at(60));
    assert_eq!(told(&scheduled), [("RotationComplete", "False", "Scheduled")]);
    let waiting = requested(rotation(at(50)), none(), &journal, at(60));
    assert_eq!(told(&waiting), [("RotationComplete", "False", "Waiting")]);
    assert!(waiting.conditions[0].message.contains(&journal.slots(Kind::Jwt)[0].id), "{:?}", waiting.conditions);
    let complete = requested(rotation(at(0)), none(), &journal, at(60));
    assert_eq!(told(&complete), [("RotationComplete", "True", "Replaced")]);
    assert_eq!(told(&requested(json!({}), none(), &journal, at(60))), [], "nobody asks for anything");
}

#[test]
fn names_of_no_authority_are_told_and_those_that_have_left_the_bundle_are_remembered() {
    let full = journal(at(0));
    let first = requested(json!({}), TrustDomainStatus::default(), &full, at(0));
    let (id, hex) = (first.authorities[0].id.clone(), first.authorities[0].subject_key_id.clone().unwrap());
    let named = |names: &[&str]| json!({"revoked": names});
    let known = requested(named(&[&id]), first.clone(), &full, at(1));
    assert_eq!(told(&known), [("RequestedAuthoritiesKnown", "True", "Known")]);

    // It is revoked, by its subject key id.
    let requests = RotationRequests { revoked: [hex.to_uppercase()].into(), ..RotationRequests::default() };
    let facts = facts_of(&domain());
    let plan = next(&full, &facts.policy, &requests, &Receipts::default(), at(2));
    let without = full.apply(&plan, &facts.policy, &LocalMaker, at(2)).now_or_never().unwrap().unwrap();
    let in_between = at(2) + SignedDuration::from_millis(300);
    let rounded = requested(named(&[&hex]), first.clone(), &without, in_between).removed;
    assert_eq!(rounded[0].accepted_until.0, at(303), "a window is not shown too short");
    let gone = requested(named(&[&hex.to_uppercase()]), first, &without, at(2));
    assert_eq!(told(&gone), [("RequestedAuthoritiesKnown", "True", "Known")]);
    let [one] = gone.removed.as_slice() else { panic!("{:?}", gone.removed) };
    assert_eq!((&one.id, one.removed_at.0, one.accepted_until.0), (&id, at(2), at(302)), "one poll later");
    let later = requested(named(&[&hex, "00ff"]), gone.clone(), &without, at(60));
    assert_eq!(later.removed, gone.removed, "it is remembered as it was");
    assert_eq!(told(&later), [("RequestedAuthoritiesKnown", "False", "UnknownAuthority")]);
    assert!(later.conditions[0].message.contains("00ff") && !later.conditions[0].message.contains(&hex));
    let withdrawn = requested(json!({}), later, &without, at(61));
    assert_eq!((withdrawn.removed, withdrawn.conditions), (Vec::new(), Vec::new()));
}
