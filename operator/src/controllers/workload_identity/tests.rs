//! What the status says of each outcome.

use countersign_crds::{TrustDomain, WorkloadIdentity};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Seen, Usable, status};
use crate::index::{IdentityKey, Index, PodRecord};

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
    let mut index = Index::new(String::new());
    index.apply_namespace("shop", [].into());
    index.apply_domain(&domain);
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
        index.apply_identity(identity(name, spec));
    }
    let statuses: Vec<_> = outcomes
        .iter()
        .map(|(name, spec)| {
            let key = IdentityKey { namespace: "shop".to_owned(), name: (*name).to_owned() };
            let seen = Seen { usable: Some(Usable::Yes), totals: None };
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
fn ready(usable: Option<Usable>) -> (String, String, String) {
    let spec = json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}});
    let mut index = index();
    index.apply_identity(identity("admitted", &spec));
    let key = IdentityKey { namespace: "shop".to_owned(), name: "admitted".to_owned() };
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let seen = Seen { usable, totals: None };
    let status = status(&identity("admitted", &spec), &index.identity(&key).unwrap(), &seen, now);
    let truths: Vec<_> = status.conditions.iter().map(|one| format!("{}={}", one.type_, one.status)).collect();
    (truths.join(" "), status.conditions[0].reason.clone(), status.conditions[0].message.clone())
}

#[test]
fn an_identity_is_ready_only_where_its_domains_authority_can_be_used() {
    assert_eq!(ready(Some(Usable::Yes)).0, "Ready=True Reconciling=False Stalled=False Refreshing=True");
    let (truths, reason, _) = ready(Some(Usable::NotYet));
    assert_eq!(
        (truths.as_str(), reason.as_str()),
        ("Ready=False Reconciling=True Stalled=False Refreshing=True", "AuthorityNotReady")
    );
    let (truths, reason, message) = ready(Some(Usable::No("Secret x is damaged".to_owned())));
    assert_eq!(
        (truths.as_str(), reason.as_str()),
        ("Ready=False Reconciling=False Stalled=True Refreshing=True", "AuthorityStalled")
    );
    assert!(message.contains("TrustDomain example.org") && message.contains("Secret x is damaged"), "{message}");
    assert_ne!(ready(None).0, ready(Some(Usable::Yes)).0);
}

#[test]
fn pods_that_never_refresh_are_named_and_the_identity_stays_ready() {
    let spec = json!({"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}});
    let mut index = index();
    index.apply_identity(identity("admitted", &spec));
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
        let seen = Seen { usable: Some(Usable::Yes), totals: None };
        let now = Timestamp::from_second(second).unwrap();
        let status = status(&object, &index.identity(&key).unwrap(), &seen, now);
        assert_eq!(status.conditions[0].status, "True", "it is ready in any case");
        let condition = status.conditions.iter().find(|one| one.type_ == "Refreshing").unwrap().clone();
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
    index.apply_identity(identity("no-domain", &spec));
    let key = IdentityKey { namespace: "shop".to_owned(), name: "no-domain".to_owned() };
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let seen = Seen { usable: None, totals: None };
    let status = status(&identity("no-domain", &spec), &index.identity(&key).unwrap(), &seen, now);
    assert!(status.conditions.iter().all(|one| one.type_ != "Refreshing"), "{:?}", status.conditions);
}
