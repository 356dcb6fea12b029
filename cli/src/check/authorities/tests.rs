//! TrustDomains that are well, and each way not to be.

use countersign_crds::TrustDomain;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{local, remote};
use crate::{output::Mark, reading::Reading};

const NOW: &str = "2030-01-01T12:00:00Z";

fn domain(change: impl FnOnce(&mut Value)) -> TrustDomain {
    let mut domain = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": { "name": "shop.example", "generation": 2, "creationTimestamp": "2030-01-01T00:00:00Z" },
        "spec": { "authority": {} },
        "status": {
            "observedGeneration": 2,
            "conditions": [condition("Ready", "True", "Signing", "it signs")],
            "nextSwitch": "2030-01-01T15:12:00Z",
            "authorities": [{
                "kind": "x509", "id": "a", "state": "active", "activateAt": "2030-01-01T00:00:00Z",
                "retireAt": "2030-01-01T15:12:00Z", "removeAt": "2030-01-02T00:00:00Z",
            }],
        },
    });
    change(&mut domain);
    serde_json::from_value(domain).unwrap()
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2030-01-01T11:58:00Z",
    })
}

fn add(domain: &mut Value, condition: Value) {
    domain["status"]["conditions"].as_array_mut().unwrap().push(condition);
}

fn found(domain: TrustDomain) -> Vec<(Mark, Option<String>)> {
    let now: Timestamp = NOW.parse().unwrap();
    let domains = Reading::Found(vec![domain]);
    let category = match domains.found().unwrap()[0].spec.remote {
        Some(_) => remote(&domains, &Reading::Absent, "countersign-system", now),
        None => local(&domains, "countersign-system", now),
    };
    category.checks.into_iter().map(|check| (check.mark, check.reason.map(|reason| reason.name().to_owned()))).collect()
}

fn because(mark: Mark, reason: &str) -> (Mark, Option<String>) {
    (mark, Some(reason.to_owned()))
}

#[test]
fn one_that_signs_passes_and_names_its_next_switch() {
    let now: Timestamp = NOW.parse().unwrap();
    let category = local(&Reading::Found(vec![domain(|_| {})]), "countersign-system", now);
    assert_eq!(category.checks.len(), 1, "{category:?}");
    assert!(category.checks[0].message.contains("next switch in 3h 12m"), "{category:?}");
}

#[test]
fn one_that_is_stalled_fails_with_its_own_reason() {
    let stalled = domain(|domain| {
        domain["status"]["conditions"] = json!([
            condition("Ready", "False", "JournalMissing", "the journal is missing"),
            condition("Stalled", "True", "JournalMissing", "the journal is missing"),
        ]);
    });
    assert_eq!(found(stalled), [because(Mark::Failed, "JournalMissing")]);
}

#[test]
fn one_without_a_status_fails_once_it_is_not_new() {
    let old = domain(|domain| domain["status"] = Value::Null);
    assert_eq!(found(old), [because(Mark::Failed, "StatusUnknown")]);
    let new = domain(|domain| {
        domain["status"] = Value::Null;
        domain["metadata"]["creationTimestamp"] = "2030-01-01T11:59:30Z".into();
    });
    assert_eq!(found(new), [because(Mark::Warning, "StatusUnknown")]);
    let changed = domain(|domain| domain["metadata"]["generation"] = 3.into());
    assert_eq!(found(changed), [because(Mark::Warning, "StatusOutdated")]);
}

#[test]
fn an_authority_that_should_have_retired_fails() {
    let late = domain(|domain| domain["status"]["authorities"][0]["retireAt"] = "2030-01-01T11:00:00Z".into());
    assert_eq!(found(late)[1], because(Mark::Failed, "SwitchOverdue"));
}

#[test]
fn conditions_that_are_a_problem_are_warnings() {
    let problems = domain(|domain| {
        add(domain, condition("NamespacesSeparated", "False", "OverlappingGrants", "two namespaces"));
        add(domain, condition("RotationComplete", "False", "Scheduled", "in an hour"));
        add(domain, condition("BundleAcknowledged", "False", "Waiting", "998/1000"));
        add(domain, condition("BundleSequenceConsistent", "Unknown", "NotReported", ""));
    });
    assert_eq!(found(problems)[1..], [because(Mark::Warning, "OverlappingGrants")]);
    let late = domain(|domain| {
        let mut waiting = condition("BundleAcknowledged", "False", "Waiting", "998/1000");
        waiting["lastTransitionTime"] = "2030-01-01T11:00:00Z".into();
        add(domain, waiting);
    });
    assert_eq!(found(late)[1], because(Mark::Warning, "Waiting"));
}

#[test]
fn a_remote_one_that_waits_for_a_poll_is_a_warning() {
    let waits = domain(|domain| {
        domain["spec"] = json!({ "remote": {
            "namespaces": { "matchNames": ["shop"] },
            "endpoint": { "url": "https://b.example", "profile": "https_web" },
        } });
        domain["status"]["authorities"] = json!([]);
        domain["status"]["conditions"] = json!([
            condition("Ready", "False", "NotBootstrapped", "no bundle yet"),
            condition("Reconciling", "True", "NotBootstrapped", "no bundle yet"),
            condition("PollFailing", "True", "PollFailing", "connection refused"),
        ]);
    });
    let expected = [because(Mark::Warning, "NotBootstrapped"), because(Mark::Warning, "PollFailing")];
    assert_eq!(found(waits)[..2], expected);
}

#[test]
fn without_trust_domains_there_is_a_warning() {
    let now: Timestamp = NOW.parse().unwrap();
    let category = local(&Reading::Found(vec![]), "countersign-system", now);
    assert_eq!(category.checks[0].code(), Some("CS5040"));
}
