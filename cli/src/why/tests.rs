//! Pods that have an identity, and each way to have none.

use serde_json::{Value, json};

use super::{About, report};
use crate::objects::Objects;

fn about(change: impl FnOnce(&mut Value)) -> About {
    let mut all = json!({
        "pod": {
            "metadata": {"name": "a", "namespace": "shop", "uid": "u", "annotations": {"countersign.dev/injected": "sidecar"}},
            "spec": {
                "serviceAccountName": "orders",
                "containers": [{"name": "app"}],
                "initContainers": [{"name": "countersign-agent"}],
                "volumes": [{"name": "countersign-token"}],
            },
            "status": {
                "phase": "Running",
                "initContainerStatuses": [{
                    "name": "countersign-agent", "started": true, "ready": true, "restartCount": 0, "image": "", "imageID": "",
                }],
            },
        },
        "namespace": {"metadata": {"name": "shop", "labels": {"countersign.dev/inject": "sidecar"}}},
        "identity": {
            "metadata": {"name": "orders", "namespace": "shop", "uid": "i"},
            "spec": {"trustDomain": "shop.example", "selector": {"serviceAccounts": ["orders"]}},
        },
        "domain": {
            "metadata": {"name": "shop.example", "uid": "d"},
            "spec": {
                "authority": {},
                "grants": [{"namespaces": {"matchNames": ["shop"]}, "paths": ["/ns/{namespace}/**"]}],
            },
        },
    });
    change(&mut all);
    let objects = Objects {
        pods: serde_json::from_value(json!([all["pod"]])).unwrap(),
        namespaces: serde_json::from_value(json!([all["namespace"]])).unwrap(),
        identities: serde_json::from_value(json!([with_type(&all["identity"], "WorkloadIdentity")])).unwrap(),
        domains: serde_json::from_value(json!([with_type(&all["domain"], "TrustDomain")])).unwrap(),
    };
    About { namespace: "shop".to_owned(), pod: "a".to_owned(), objects }
}

fn with_type(object: &Value, kind: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = "countersign.dev/v1alpha1".into();
    object["kind"] = kind.into();
    object
}

#[test]
fn of_a_pod_with_an_identity_every_step_passes() {
    let report = report(&about(|_| {}));
    assert!(report.is_well(), "{report:?}");
    assert!(
        report.steps.iter().any(|step| step.message.contains("spiffe://shop.example/ns/shop/sa/orders")),
        "{report:?}"
    );
}

#[test]
fn the_first_step_that_fails_is_named_and_nothing_after_it() {
    let remove = |path: &'static str, member: &'static str| {
        move |all: &mut Value| {
            all.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(member);
        }
    };
    let not_injected = remove("/pod/metadata/annotations", "countersign.dev/injected");
    let cases: [(&str, &str, Box<dyn Fn(&mut Value)>); 8] = [
        ("pod", "Ended", Box::new(|all| all["pod"]["status"]["phase"] = "Succeeded".into())),
        ("injection", "NotInjected", Box::new(not_injected)),
        (
            "injection",
            "NotRequested",
            Box::new(move |all| {
                not_injected(all);
                all["namespace"]["metadata"]["labels"] = json!({});
            }),
        ),
        ("token", "NoToken", Box::new(remove("/pod/spec", "volumes"))),
        (
            "identity",
            "NoWorkloadIdentity",
            Box::new(|all| all["identity"]["metadata"]["namespace"] = "elsewhere".into()),
        ),
        ("identity", "NoTrustDomain", Box::new(|all| all["identity"]["spec"]["trustDomain"] = "other.example".into())),
        ("identity", "NotGranted", Box::new(|all| all["domain"]["spec"]["grants"] = json!([]))),
        (
            "delivery",
            "AgentNotReady",
            Box::new(|all| all["pod"]["status"]["initContainerStatuses"][0]["started"] = false.into()),
        ),
    ];
    for (step, reason, change) in cases {
        let report = report(&about(change));
        let last = report.steps.last().unwrap();
        assert_eq!((last.name, last.reason.as_deref()), (step, Some(reason)), "{report:?}");
        assert!(report.steps.iter().rev().skip(1).all(|step| step.passed));
    }
}
