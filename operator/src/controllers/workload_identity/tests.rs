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
    assert_eq!(ready(Some(Usable::Yes)).0, "Ready=True Reconciling=False Stalled=False");
    let (truths, reason, _) = ready(Some(Usable::NotYet));
    assert_eq!((truths.as_str(), reason.as_str()), ("Ready=False Reconciling=True Stalled=False", "AuthorityNotReady"));
    let (truths, reason, message) = ready(Some(Usable::No("Secret x is damaged".to_owned())));
    assert_eq!((truths.as_str(), reason.as_str()), ("Ready=False Reconciling=False Stalled=True", "AuthorityStalled"));
    assert!(message.contains("TrustDomain example.org") && message.contains("Secret x is damaged"), "{message}");
    assert_ne!(ready(None).0, ready(Some(Usable::Yes)).0);
}
