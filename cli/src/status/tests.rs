//! Screens of installations that are well and that are not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{decide, observe::Seen};
use crate::{
    installation::{Leader, Replicas},
    output::{Page, Report as _},
    reading::{Reading, Right},
};

const NOW: &str = "2030-01-01T12:00:00Z";

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn condition(status: &str, reason: &str) -> Value {
    json!([{
        "type": "Ready", "status": status, "reason": reason, "message": "",
        "lastTransitionTime": "2030-01-01T00:00:00Z",
    }])
}

fn identity(name: &str, status: &str, reason: &str) -> Value {
    json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "trustDomain": "shop.example", "selector": { "serviceAccounts": ["orders"] } },
        "status": {
            "conditions": condition(status, reason),
            "pods": { "matched": 2, "notInjected": 1, "served": 1, "held": 1 },
            "nextExpiry": "2030-01-01T12:30:00Z",
        },
    })
}

fn seen() -> Seen {
    let replicas = |ready| Replicas {
        wanted: 2,
        ready,
        images: BTreeSet::from(["image:dev".to_owned()]),
        running: BTreeSet::new(),
        not_ready: BTreeMap::new(),
    };
    let domain = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": { "name": "shop.example" },
        "spec": { "authority": {} },
        "status": {
            "conditions": condition("True", "Signing"),
            "nextSwitch": "2030-01-01T15:12:00Z",
            "bundle": { "sequence": 7, "refreshHint": "5m", "acknowledged": "998/1000" },
            "authorities": [{
                "kind": "x509", "id": "a1", "state": "active", "activateAt": "2030-01-01T00:00:00Z",
                "retireAt": "2030-01-01T15:12:00Z", "removeAt": "2030-01-02T00:00:00Z",
            }],
        },
    });
    let event = |minute: u32| {
        json!({
            "metadata": { "name": format!("e{minute}"), "namespace": "shop" },
            "eventTime": format!("2030-01-01T11:{minute:02}:00.000000Z"), "reason": "NoIdentity",
            "message": format!("number {minute}"), "involvedObject": { "kind": "Pod", "namespace": "shop", "name": "a" },
        })
    };
    Seen {
        operator: Reading::Found(replicas(2)),
        webhook: Reading::Found(replicas(1)),
        webhook_ca: Reading::Found(replicas(0)),
        endpoint: Reading::Absent,
        leader: Reading::Found(Leader { holder: Some("operator-a_01".to_owned()), renewed: None, duration: 15 }),
        domains: Reading::Found(vec![of(domain)]),
        identities: Reading::Found(vec![
            of(identity("orders", "True", "Admitted")),
            of(identity("cart", "True", "Admitted")),
            of(identity("till", "False", "NotGranted")),
        ]),
        events: Reading::Found((1..20).map(|minute| of(event(minute))).collect()),
    }
}

fn text(seen: &Seen, width: usize) -> String {
    let mut page = Page::new(Some(width));
    decide::report(seen, NOW.parse::<Timestamp>().unwrap()).write(&mut page);
    page.into_text()
}

#[test]
fn a_screen_shows_components_domains_identities_and_pods() {
    let text = text(&seen(), 200);
    for part in [
        "2/2 ready, operator-a leads",
        "shop.example",
        "998/1000",
        "in 3h 12m",
        "workload identities: 3",
        "NotGranted, such as shop/till",
        "3 of 6 that identities select",
        "3 of 3, on the socket and in the files",
        "not injected  3",
        "in 30m",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

#[test]
fn the_newest_warnings_are_shown() {
    let text = text(&seen(), 200);
    assert!(text.contains("number 19") && text.contains("number 15"), "{text}");
    assert!(!text.contains("number 14\n"), "{text}");
}

#[test]
fn a_screen_fits_a_terminal_of_80_columns() {
    let text = text(&seen(), 80);
    let visible = |line: &str| anstream::adapter::strip_str(line).to_string().chars().count();
    assert!(text.lines().all(|line| visible(line) <= 80), "{text}");
}

#[test]
fn what_may_not_be_read_is_said_and_the_rest_is_shown() {
    let mut seen = seen();
    seen.domains = Reading::Forbidden(Right::new("list", "trustdomains.countersign.dev", None));
    let text = text(&seen, 200);
    assert!(text.contains("you may not list trustdomains.countersign.dev"), "{text}");
    assert!(text.contains("2/2 ready") && text.contains("workload identities: 3"), "{text}");
    assert!(!text.contains("trust domains: 0"), "{text}");
}
