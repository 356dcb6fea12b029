//! What is known of a pod by each of its signs.

use serde_json::{Value, json};

use countersign_reasons::Reason;

use super::{
    decide::{Observed, report},
    report::{Answer, Report},
};
use crate::objects::Objects;

fn observed(change: impl FnOnce(&mut Value)) -> Report {
    let mut all = json!({
        "pod": {
            "metadata": {
                "name": "orders-1", "namespace": "shop", "uid": "u", "annotations": {"countersign.dev/injected": "sidecar"},
            },
            "spec": {"serviceAccountName": "orders", "containers": [{"name": "app"}]},
            "status": {"phase": "Running", "initContainerStatuses": [{
                "name": "countersign-agent", "started": true, "ready": true, "restartCount": 0, "image": "", "imageID": "",
            }]},
        },
        "identity": {
            "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
            "metadata": {"name": "orders", "namespace": "shop", "uid": "i"},
            "spec": {"trustDomain": "shop.example", "selector": {"serviceAccounts": ["orders"]}},
            "status": {"pods": {"matched": 2, "notInjected": 0, "served": 2, "held": 2}},
        },
        "domain": {
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
            "metadata": {"name": "shop.example", "uid": "d"},
            "spec": {"authority": {}, "grants": [{"namespaces": {"matchNames": ["shop"]}, "paths": ["/ns/{namespace}/**"]}]},
        },
        "events": [],
        "decidable": true,
    });
    change(&mut all);
    report(&Observed {
        objects: Objects {
            pods: serde_json::from_value(json!([all["pod"]])).unwrap(),
            namespaces: serde_json::from_value(json!([{"metadata": {"name": "shop"}}])).unwrap(),
            identities: serde_json::from_value(json!([all["identity"]])).unwrap(),
            domains: serde_json::from_value(json!([all["domain"]])).unwrap(),
            cluster: String::new(),
        },
        events: serde_json::from_value(all["events"].clone()).unwrap(),
        is_decidable: all["decidable"].as_bool().unwrap(),
        denied: Vec::new(),
        now: "2026-11-27T12:00:00Z".parse().unwrap(),
    })
}

fn answers(report: &Report) -> [Answer; 3] {
    let [row] = report.rows.as_slice() else { panic!("{report:?}") };
    [row.entitled.answer, row.issued.answer, row.held.answer]
}

#[test]
fn a_pod_among_pods_that_are_all_served_has_what_it_is_entitled_to() {
    let report = observed(|_| {});
    assert_eq!(answers(&report), [Answer::Yes; 3]);
    assert_eq!(report.rows[0].id.as_deref(), Some("spiffe://shop.example/ns/shop/sa/orders"));
    assert!(!report.has_differences());
}

#[test]
fn of_pods_that_are_served_in_part_it_is_not_known_which() {
    let report = observed(|all| {
        all["identity"]["status"]["pods"] = json!({"matched": 2, "notInjected": 0, "served": 1, "held": 1});
    });
    assert_eq!(answers(&report), [Answer::Yes, Answer::Unknown, Answer::Unknown]);
    assert!(!report.has_differences(), "what is not known is no difference");
}

#[test]
fn pods_without_an_agent_are_not_counted_on() {
    let report = observed(|all| {
        all["identity"]["status"]["pods"] = json!({"matched": 3, "notInjected": 1, "served": 2, "held": 2});
    });
    assert_eq!(answers(&report), [Answer::Yes; 3]);
    let report = observed(|all| all["pod"]["metadata"]["annotations"] = json!({}));
    assert_eq!(answers(&report), [Answer::Yes, Answer::No, Answer::No]);
    assert!(report.has_differences());
}

#[test]
fn a_pod_holds_what_its_agent_says_it_holds() {
    let undelivered = |pod: &str, reason: &str| {
        observed(|all| {
            all["identity"]["status"] = json!({
                "pods": {"matched": 2, "notInjected": 0, "served": 2, "held": 1},
                "undelivered": [{"pod": pod, "reason": reason, "message": "its files are old (CS1303)"}],
            });
        })
    };
    let lacking = undelivered("orders-1", "FilesDiffer");
    assert_eq!(answers(&lacking), [Answer::Yes, Answer::Yes, Answer::No]);
    assert_eq!(lacking.rows[0].held.why, "its files are old");
    assert!(lacking.has_differences());
    assert_eq!(answers(&undelivered("orders-2", "FilesDiffer")), [Answer::Yes; 3]);
    let clock = undelivered("orders-1", "AgentClockDiffers");
    assert_eq!(answers(&clock)[2], Answer::Unknown, "another may be the one that lacks it");
    assert_eq!(clock.findings[0].known_reason(), Some(Reason::AgentClockDiffers));
}

// While no operator writes, what it wrote last ages.
#[test]
fn a_status_that_speaks_of_what_has_expired_says_nothing() {
    let held = |expiry: &str| {
        let report = observed(|all| all["identity"]["status"]["nextExpiry"] = expiry.into());
        answers(&report)[2]
    };
    assert_eq!(held("2026-11-27T12:00:01Z"), Answer::Yes);
    assert_eq!(held("2026-11-27T12:00:00Z"), Answer::Unknown);
}

// Of a release before receipts.
#[test]
fn an_operator_that_does_not_count_receipts_leaves_it_unknown() {
    let report =
        observed(|all| all["identity"]["status"]["pods"] = json!({"matched": 2, "notInjected": 0, "served": 2}));
    assert_eq!(answers(&report), [Answer::Yes, Answer::Yes, Answer::Unknown]);
}

#[test]
fn an_agent_that_waits_holds_nothing() {
    let report = observed(|all| all["pod"]["status"]["initContainerStatuses"][0]["started"] = false.into());
    assert_eq!(answers(&report)[2], Answer::No);
    assert!(report.has_differences());
}

#[test]
fn statistics_that_are_incomplete_say_nothing() {
    let report = observed(|all| {
        all["identity"]["status"]["conditions"] = json!([{
            "type": "StatsComplete", "status": "False", "reason": "ReplicaUnreachable", "message": "",
            "lastTransitionTime": "2026-11-27T12:00:00Z",
        }]);
    });
    assert_eq!(answers(&report)[1], Answer::Unknown);
}

#[test]
fn credentials_may_outlive_an_entitlement() {
    let report = observed(|all| all["domain"]["spec"]["grants"] = json!([]));
    assert_eq!(answers(&report), [Answer::No, Answer::No, Answer::Unknown]);
    assert!(report.rows[0].entitled.why.contains("NotGranted"), "{report:?}");
    assert!(report.has_differences());
}

#[test]
fn what_may_not_be_read_decides_nothing() {
    let report = observed(|all| all["decidable"] = false.into());
    assert_eq!(answers(&report)[..2], [Answer::Unknown, Answer::Unknown]);
}

#[test]
fn a_pod_that_has_not_got_the_newest_bundle_is_found_in_the_condition_by_its_whole_name() {
    let lagging = |name: &str| {
        observed(|all| {
            all["domain"]["status"]["conditions"] = json!([{
                "type": "BundleAcknowledged", "status": "False", "reason": "Waiting",
                "message": format!("1/2; not yet: {name}, shop/other"), "lastTransitionTime": "2026-11-27T12:00:00Z",
            }]);
        })
    };
    assert_eq!(lagging("shop/orders-1").findings[0].known_reason(), Some(Reason::BundleNotAcknowledged));
    assert!(lagging("shop/orders-12").findings.is_empty());
}

#[test]
fn warnings_on_the_pod_are_shown() {
    let report = observed(|all| {
        all["events"] = json!([{
            "metadata": {}, "involvedObject": {}, "type": "Warning", "reason": "AgentOutdated", "message": "restart it",
            "eventTime": "2026-11-27T12:00:00.000000Z",
        }]);
    });
    assert!(report.findings.iter().any(|one| one.code() == Some("CS1205")), "{report:?}");
}
