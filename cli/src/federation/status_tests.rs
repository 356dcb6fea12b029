//! Consents that are missing, and what is wrong with a bundle.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

fn condition_of(type_: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": format!("{type_} of b.example"),
        "lastTransitionTime": now().to_string(),
    })
}

fn observed(change: impl FnOnce(&mut Value)) -> Observed {
    let typed = |kind: &str, mut object: Value| {
        object["apiVersion"] = "countersign.dev/v1alpha1".into();
        object["kind"] = kind.into();
        object
    };
    let mut all = json!({
        "domains": [
            typed("TrustDomain", json!({
                "metadata": {"name": "a.example", "uid": "a"},
                "spec": {"authority": {}, "grants": [{
                    "namespaces": {"matchNames": ["shop"]}, "paths": ["/ns/{namespace}/**"], "federatesWith": ["b.example"],
                }]},
            })),
            typed("TrustDomain", json!({
                "metadata": {"name": "b.example", "uid": "b"},
                "spec": {"remote": {
                    "namespaces": {"matchNames": ["shop"]},
                    "endpoint": {"url": "https://b.example/", "profile": "https_web"},
                }},
                "status": {
                    "conditions": [condition_of("Ready", "True", "Polled")],
                    "remote": {"nextPoll": (now() + SignedDuration::from_secs(60)).to_string()},
                },
            })),
        ],
        "identities": [typed("WorkloadIdentity", json!({
            "metadata": {"name": "orders", "namespace": "shop", "uid": "i"},
            "spec": {
                "trustDomain": "a.example", "selector": {"serviceAccounts": ["orders"]}, "federatesWith": ["b.example"],
            },
        }))],
        "namespaces": [{"metadata": {"name": "shop"}}],
    });
    change(&mut all);
    Observed {
        objects: Objects {
            domains: serde_json::from_value(all["domains"].clone()).unwrap(),
            identities: serde_json::from_value(all["identities"].clone()).unwrap(),
            namespaces: serde_json::from_value(all["namespaces"].clone()).unwrap(),
            ..Objects::default()
        },
        denied: Vec::new(),
    }
}

/// Whether the one user gets the bundle, and which reason it has if not.
fn user_of(change: impl FnOnce(&mut Value)) -> (Option<bool>, Option<String>) {
    let report = report(&observed(change), None, now());
    let [user] = report.remotes[0].users.as_slice() else { panic!("{report:?}") };
    (user.gets_it, user.reason.clone())
}

#[test]
fn each_consent_that_is_missing_is_named() {
    assert_eq!(user_of(|_| {}), (Some(true), None));
    let missing = |reason: &str| (Some(false), Some(reason.to_owned()));
    let grant = |all: &mut Value| all["domains"][0]["spec"]["grants"][0]["federatesWith"] = json!([]);
    assert_eq!(user_of(grant), missing("FederationNotGranted"));
    let admission = |all: &mut Value| all["domains"][1]["spec"]["remote"]["namespaces"]["matchNames"] = json!(["bank"]);
    assert_eq!(user_of(admission), missing("NamespaceNotAdmitted"));
    let none = report(&observed(|all| all["identities"][0]["spec"]["federatesWith"] = json!([])), None, now());
    assert!(none.remotes[0].users.is_empty() && none.is_well(), "{none:?}");
}

#[test]
fn a_named_trust_domain_without_an_object_is_listed_with_who_names_it() {
    let report = report(&observed(|all| all["domains"].as_array_mut().unwrap().truncate(1)), None, now());
    assert_eq!(report.unknown["b.example"], ["shop/orders"]);
    assert!(!report.is_well());
}

#[test]
fn what_the_operator_reports_counts_where_nothing_can_be_judged() {
    let without_namespaces = |condition: Option<Value>| {
        user_of(|all| {
            all["namespaces"] = json!([]);
            all["identities"][0]["status"]["conditions"] = condition.into_iter().collect();
        })
    };
    assert_eq!(without_namespaces(None), (None, None));
    assert_eq!(without_namespaces(Some(condition_of("Federated", "True", "Complete"))), (Some(true), None));
    let no_bundle = without_namespaces(Some(condition_of("Federated", "False", "NoBundle")));
    assert_eq!(no_bundle, (Some(false), Some("NoBundle".to_owned())));
}

#[test]
fn conditions_that_say_that_something_is_wrong_are_shown_with_their_codes() {
    let report = report(
        &observed(|all| {
            all["domains"][1]["status"]["conditions"] = json!([
                condition_of("Ready", "False", "Stale"),
                condition_of("PollFailing", "True", "PollFailing"),
                condition_of("ConsentsComplete", "True", "Complete"),
            ]);
            all["domains"][1]["status"]["remote"]["nextPoll"] =
                (now() - SignedDuration::from_hours(1)).to_string().into();
        }),
        None,
        now(),
    );
    let found: Vec<_> = report.remotes[0].findings.iter().map(|one| (one.mark, one.code())).collect();
    assert_eq!(
        found,
        [(Mark::Failed, Some("CS2113")), (Mark::Warning, Some("CS2114")), (Mark::Warning, Some("CS4117"))]
    );
    assert!(!report.is_well());
}

#[test]
fn what_may_not_be_read_is_named_and_the_rest_is_shown() {
    let mut observed = observed(|all| all["identities"] = json!([]));
    observed.denied.push(Right::new("list", "workloadidentities.countersign.dev", None));
    let report = report(&observed, None, now());
    assert!(report.findings[0].message.contains("list workloadidentities.countersign.dev"));
    assert_eq!(report.remotes.len(), 1);
}
