//! The container that is added, and what is said of both sides.

use std::time::Duration;

use serde_json::json;

use super::{Container, Ended, Report, Side};
use crate::output::{Page, Report as _};

fn ended(outcome: &str, peer: Option<&str>, message: Option<&str>) -> Ended {
    Ended {
        own: Some("spiffe://shop.example/cart".to_owned()),
        peer: peer.map(str::to_owned),
        outcome: outcome.to_owned(),
        message: message.map(str::to_owned),
    }
}

fn report(a: Ended, b: Ended) -> Report {
    let (a, b) = (Side::new("shop/cart", "", a), Side::new("shop/orders", " --context east", b));
    Report { passed: a.reason.is_none() && b.reason.is_none(), a, b }
}

fn text(report: &Report) -> String {
    let mut page = Page::new(None);
    report.write(&mut page);
    page.into_text()
}

#[test]
fn both_sides_name_whom_they_authenticated() {
    let peer = Some("spiffe://shop.example/orders");
    let report = report(ended("authenticated", peer, None), ended("authenticated", peer, None));
    assert!(report.passed);
    assert_eq!(text(&report).matches("authenticated spiffe://shop.example/orders").count(), 2);
}

#[test]
fn both_refusals_are_named_and_what_to_do_about_the_one_that_refused() {
    let a = ended("refusedByPeer", None, Some("the peer refused this pod's certificate"));
    let b = ended("refusedPeer", None, Some("no bundle of shop.example"));
    let report = report(a, b);
    let text = text(&report);
    assert!(!report.passed);
    assert_eq!(text.matches("CS5090").count(), 2, "{text}");
    assert_eq!(text.matches("why -n shop orders --context east").count(), 1, "{text}");
    assert!(!text.contains("why -n shop cart"), "{text}");
}

#[test]
fn the_container_is_as_restricted_as_the_agent_and_reads_the_identity() {
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "cart" },
        "spec": {
            "containers": [],
            "initContainers": [{
                "name": "countersign-agent", "image": "agent:1", "imagePullPolicy": "IfNotPresent",
                "securityContext": { "runAsUser": 7, "capabilities": { "drop": ["ALL"] } },
                "volumeMounts": [
                    { "name": "countersign-token", "mountPath": "/var/run/secrets/countersign.dev" },
                    { "name": "countersign-identity-app", "mountPath": "/sessions/app" },
                ],
            }],
        },
    }))
    .unwrap();
    let container = Container::of(&pod, "p", ["--dial", "10.0.0.1:7000"], Duration::from_secs(3)).unwrap();
    let patch = container.patch();
    let added = patch.pointer("/spec/ephemeralContainers/0").unwrap();
    assert_eq!(added["args"], json!(["probe", "--timeout", "3s", "--dial", "10.0.0.1:7000"]));
    assert_eq!(added["image"], "agent:1");
    assert_eq!(added["securityContext"]["runAsUser"], 7);
    let mounts = json!([{ "name": "countersign-identity-app", "mountPath": "/run/countersign", "readOnly": true }]);
    assert_eq!(added["volumeMounts"], mounts);
}
