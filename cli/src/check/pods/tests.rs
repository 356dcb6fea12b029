//! Pods with and without an identity, and agents of other images.

use countersign_crds::{TrustDomain, WorkloadIdentity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::{Value, json};

use super::{Seen, agents, category};
use crate::{
    output::Mark,
    reading::{Reading, Right},
};

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn seen(pod: Value) -> Seen {
    let domain: TrustDomain = of(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": { "name": "shop.example", "uid": "d" },
        "spec": { "authority": {}, "grants": [{ "namespaces": { "matchNames": ["shop"] }, "paths": ["/ns/{namespace}/**"] }] },
    }));
    let identity: WorkloadIdentity = of(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": { "name": "orders", "namespace": "shop", "uid": "i" },
        "spec": { "trustDomain": "shop.example", "selector": { "serviceAccounts": ["orders"] } },
        "status": { "conditions": [{
            "type": "Ready", "status": "True", "reason": "Admitted", "message": "",
            "lastTransitionTime": "2030-01-01T00:00:00Z",
        }] },
    }));
    let namespace: Namespace =
        of(json!({ "metadata": { "name": "shop", "labels": { "countersign.dev/inject": "sidecar" } } }));
    Seen {
        name_in_paths: String::new(),
        domains: Reading::Found(vec![domain]),
        identities: Reading::Found(vec![identity]),
        namespaces: Reading::Found(vec![namespace]),
        pods: Reading::Found(vec![of::<Pod>(pod)]),
    }
}

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "a", "namespace": "shop", "uid": "u", "creationTimestamp": "2030-01-01T00:00:00Z",
            "annotations": { "countersign.dev/injected": "sidecar" },
        },
        "spec": {
            "serviceAccountName": "orders", "containers": [{ "name": "app" }],
            "initContainers": [{ "name": "countersign-agent", "image": "agent:1" }],
        },
        "status": { "phase": "Running", "initContainerStatuses": [{
            "name": "countersign-agent", "started": true, "ready": true, "restartCount": 0, "image": "", "imageID": "",
        }] },
    })
}

fn pods_check(change: impl FnOnce(&mut Value)) -> (Mark, Option<String>) {
    let mut pod = pod();
    change(&mut pod);
    let now: Timestamp = "2030-01-01T12:00:00Z".parse().unwrap();
    let category = category(&seen(pod), now);
    let check = category.checks.into_iter().find(|check| check.about == "pods").unwrap();
    (check.mark, check.reason.map(|reason| reason.name().to_owned()))
}

#[test]
fn a_pod_with_an_identity_passes() {
    assert_eq!(pods_check(|_| {}), (Mark::Ok, None));
}

#[test]
fn pods_without_an_identity_are_warnings_with_their_reason() {
    let because = |reason: &str| (Mark::Warning, Some(reason.to_owned()));
    let not_injected = pods_check(|pod| {
        pod["metadata"]["annotations"] = json!({});
    });
    assert_eq!(not_injected, because("NotInjected"));
    let another = pods_check(|pod| pod["spec"]["serviceAccountName"] = "another".into());
    assert_eq!(another, because("ServiceAccountNotSelected"));
    let waits = pods_check(|pod| pod["status"]["initContainerStatuses"][0]["started"] = false.into());
    assert_eq!(waits, because("PodsNotServed"));
}

#[test]
fn a_new_pod_and_one_that_requests_nothing_are_left_alone() {
    let new = pods_check(|pod| {
        pod["metadata"]["creationTimestamp"] = "2030-01-01T11:59:50Z".into();
        pod["status"]["initContainerStatuses"][0]["started"] = false.into();
    });
    assert_eq!(new, (Mark::Ok, None));
    let opted_out = pods_check(|pod| {
        pod["metadata"]["annotations"] = json!({});
        pod["metadata"]["labels"] = json!({ "countersign.dev/inject": "false" });
    });
    assert_eq!(opted_out, (Mark::Ok, None));
}

#[test]
fn agents_of_another_image_are_counted() {
    let seen = seen(pod());
    let check = |image: &str| agents(&seen, &Reading::Found(image.to_owned()), 0.0).remove(0);
    assert_eq!(check("agent:1").mark, Mark::Ok);
    let other = check("agent:2");
    assert_eq!(other.code(), Some("CS5039"));
    assert!(other.message.contains("shop/a"), "{other:?}");
}

#[test]
fn outdated_agents_are_named_as_soon_as_a_replica_counts_them() {
    let check = agents(&seen(pod()), &Reading::Absent, 2.0).remove(0);
    assert_eq!(check.code(), Some("CS1205"));
    assert!(check.message.contains("count 2 sessions"), "{check:?}");
}

#[test]
fn what_may_not_be_read_is_not_taken_for_missing() {
    let mut seen = seen(pod());
    seen.domains = Reading::Forbidden(Right::new("list", "trustdomains.countersign.dev", None));
    let now: Timestamp = "2030-01-01T12:00:00Z".parse().unwrap();
    let category = category(&seen, now);
    assert!(category.checks.iter().all(|check| check.mark < Mark::Warning), "{category:?}");
    assert!(category.checks.iter().any(|check| check.about == "domains"), "{category:?}");
}
