//! Pods that have an identity, and each way to have none.

use serde_json::{Value, json};

use countersign_reasons::Reason;

use super::{About, Maker, report};
use crate::{finding::Finding, objects::Objects};

fn about(change: impl FnOnce(&mut Value)) -> About {
    let mut all = json!({
        "pod": {
            "metadata": {"name": "a", "namespace": "shop", "uid": "u", "annotations": {"countersign.dev/injected": "sidecar"}},
            "spec": {
                "serviceAccountName": "orders",
                "containers": [{"name": "app"}],
                "nodeName": "n",
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
        "events": [],
        "domain": {
            "metadata": {"name": "shop.example", "uid": "d"},
            "status": {"conditions": [{
                "type": "Ready", "status": "True", "reason": "Signing", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
            "spec": {
                "authority": {},
                "grants": [{"namespaces": {"matchNames": ["shop"]}, "paths": ["/ns/{namespace}/**"]}],
            },
        },
    });
    change(&mut all);
    let objects = Objects {
        namespaces: serde_json::from_value(json!([all["namespace"]])).unwrap(),
        identities: serde_json::from_value(json!([with_type(&all["identity"], "WorkloadIdentity")])).unwrap(),
        domains: serde_json::from_value(json!([with_type(&all["domain"], "TrustDomain")])).unwrap(),
        ..Objects::default()
    };
    About {
        namespace: "shop".to_owned(),
        asked: "a".to_owned(),
        pod: serde_json::from_value(all["pod"].clone()).unwrap(),
        objects,
        events: serde_json::from_value(all["events"].clone()).unwrap(),
        ..About::default()
    }
}

fn with_type(object: &Value, kind: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = "countersign.dev/v1alpha1".into();
    object["kind"] = kind.into();
    object
}

/// A change of what is observed.
type Change = Box<dyn Fn(&mut Value)>;

fn without(path: &'static str, member: &'static str) -> impl Fn(&mut Value) + Copy {
    move |all: &mut Value| {
        all.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(member);
    }
}

#[test]
fn of_a_pod_with_an_identity_every_step_passes() {
    let report = report(&about(|_| {}));
    assert!(report.is_well() && report.warnings.is_empty(), "{report:?}");
    let mut found = report.steps.iter().map(|step| step.message.as_str());
    assert!(found.any(|found| found == "spiffe://shop.example/ns/shop/sa/orders"), "{report:?}");
}

#[test]
fn the_first_step_that_fails_is_named_with_what_mends_it_and_nothing_after_it() {
    let not_injected = without("/pod/metadata/annotations", "countersign.dev/injected");
    let cases: [(&str, Reason, &str, Change); 14] = [
        ("pod", Reason::PodEnded, "", Box::new(|all| all["pod"]["status"]["phase"] = "Succeeded".into())),
        ("injection", Reason::NotInjected, "create the pod a again", Box::new(not_injected)),
        (
            "injection",
            Reason::NotAsked,
            "kubectl label namespace shop countersign.dev/inject=sidecar --overwrite",
            Box::new(move |all| {
                not_injected(all);
                all["namespace"]["metadata"]["labels"] = json!({});
            }),
        ),
        (
            "injection",
            Reason::OptedOut,
            "set the label countersign.dev/inject to sidecar",
            Box::new(move |all| {
                not_injected(all);
                all["pod"]["metadata"]["labels"] = json!({"countersign.dev/inject": "false"});
            }),
        ),
        (
            "injection",
            Reason::NamespaceMode,
            "--overwrite",
            Box::new(move |all| {
                not_injected(all);
                all["namespace"]["metadata"]["labels"]["countersign.dev/inject"] = "yes".into();
            }),
        ),
        (
            "token",
            Reason::TokenVolumeRemoved,
            "mutatingwebhookconfigurations",
            Box::new(without("/pod/spec", "volumes")),
        ),
        (
            "match",
            Reason::NoWorkloadIdentity,
            "serviceAccounts: [orders]",
            Box::new(|all| all["identity"]["metadata"]["namespace"] = "elsewhere".into()),
        ),
        (
            "match",
            Reason::ServiceAccountNotSelected,
            r#""value":"web""#,
            Box::new(|all| all["pod"]["spec"]["serviceAccountName"] = "web".into()),
        ),
        (
            "match",
            Reason::LabelsDiffer,
            "kubectl edit --namespace shop workloadidentity orders",
            Box::new(|all| all["identity"]["spec"]["selector"]["matchLabels"] = json!({"tier": "front"})),
        ),
        (
            "grant",
            Reason::NoTrustDomain,
            "shop.example",
            Box::new(|all| all["identity"]["spec"]["trustDomain"] = "other.example".into()),
        ),
        (
            "grant",
            Reason::NotGranted,
            r#"kubectl patch trustdomain shop.example --type json --patch '[{"op":"add","path":"/spec/grants","value":[{"#,
            Box::new(|all| all["domain"]["spec"]["grants"] = json!([])),
        ),
        (
            "issue",
            Reason::JournalMissing,
            "kubectl describe trustdomain shop.example",
            Box::new(|all| {
                let ready = &mut all["domain"]["status"]["conditions"][0];
                (ready["status"], ready["reason"]) = ("False".into(), "JournalMissing".into());
            }),
        ),
        (
            "delivery",
            Reason::AgentWaits,
            "kubectl logs",
            Box::new(|all| all["pod"]["status"]["initContainerStatuses"][0]["started"] = false.into()),
        ),
        (
            "delivery",
            Reason::AgentImageNotPulled,
            "kubectl describe pod",
            Box::new(|all| {
                let agent = &mut all["pod"]["status"]["initContainerStatuses"][0];
                agent["started"] = false.into();
                agent["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
            }),
        ),
    ];
    for (step, reason, mend, change) in cases {
        let report = report(&about(change));
        let last = report.steps.last().unwrap();
        assert!(last.has_failed(), "{reason}: {report:?}");
        assert_eq!((last.about.as_str(), last.known_reason()), (step, Some(reason)), "{report:?}");
        assert!(last.mends.join("\n").contains(mend), "{mend}: {last:?}");
        assert!(!report.steps.iter().rev().skip(1).any(Finding::has_failed));
    }
}

/// The pod is refused at admission, so that there is none to ask about.
#[test]
fn a_pod_that_admission_refused_is_explained_by_the_event_of_what_makes_it() {
    let mut about = about(|all| {
        all["pod"] = Value::Null;
        all["events"] = json!([{
            "metadata": {"name": "e"}, "reason": "FailedCreate", "involvedObject": {"name": "orders-5d4f"},
            "message": "admission webhook \"pods\" denied the request: countersign: the namespace's label is wrong (CS3004)",
        }]);
    });
    about.asked = "deployment/orders".to_owned();
    about.maker = Some(Maker::Wants(Some(1)));
    let explained = report(&about);
    let step = &explained.steps[0];
    assert!(step.has_failed() && step.is(Reason::NamespaceMode), "{step:?}");
    assert!(step.mends[0].starts_with("kubectl label namespace shop"), "{step:?}");
    about.asked = "deployment/other".to_owned();
    assert!(report(&about).steps[0].is(Reason::PodNotFound));
}

/// A token that is used elsewhere costs the pod nothing, and somebody should look at it.
#[test]
fn what_costs_no_identity_is_a_warning_beside_the_steps() {
    let report = report(&about(|all| {
        all["identity"]["status"] = json!({"conditions": [{
            "type": "Federated", "status": "False", "reason": "NoBundle", "message": "no bundle (CS1023)",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        all["events"] = json!([{
            "metadata": {"name": "e"}, "reason": "StreamsFromSeveralAddresses", "involvedObject": {"uid": "u"}, "message": "m",
        }]);
    }));
    let reasons: Vec<_> = report.warnings.iter().filter_map(Finding::known_reason).collect();
    assert_eq!(reasons, [Reason::NoBundle, Reason::StreamsFromSeveralAddresses]);
    assert!(report.is_well());
    assert_eq!(report.warnings[0].plain_message(), "WorkloadIdentity orders: no bundle");
}

/// Whoever may make a WorkloadIdentity writes what the owner of its TrustDomain is to copy.
#[test]
fn a_command_that_mends_runs_nothing_of_what_stands_in_objects() {
    let hostile = "x';touch${IFS}/tmp/owned;'";
    let granted = report(&about(|all| all["identity"]["spec"]["jwt"] = json!({"audiences": [hostile]})));
    let mends = &granted.steps.last().unwrap().mends;
    let command =
        mends.last().unwrap().strip_prefix("kubectl patch trustdomain shop.example --type json --patch ").unwrap();
    let run = std::process::Command::new("sh").args(["-c", &format!("printf %s {command}")]).output().unwrap();
    let patch: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(patch[0]["value"]["audiences"][0], hostile);

    let named = report(&about(|all| all["identity"]["spec"]["trustDomain"] = hostile.into()));
    let mends = &named.steps.last().unwrap().mends;
    assert!(mends.iter().all(|mend| !mend.contains("touch")), "{mends:?}");
}

#[test]
fn programs_find_a_step_that_passed_and_the_cause_of_one_that_did_not() {
    let report = report(&about(|all| all["identity"]["metadata"]["namespace"] = "elsewhere".into()));
    let json = serde_json::to_value(&report).unwrap();
    let steps = json["steps"].as_array().unwrap();
    assert_eq!(steps[0], json!({"name": "pod", "found": "Running"}));
    let failed = steps.last().unwrap();
    assert_eq!((&failed["name"], &failed["cause"]["code"]), (&json!("match"), &json!("CS1100")));
    assert!(failed.get("found").is_none() && failed["cause"]["mend"][0].is_string(), "{failed:#}");
    assert!(json.get("warnings").is_none(), "{json:#}");
}

#[test]
fn credentials_that_have_not_arrived_are_beside_an_identity_that_the_pod_has() {
    let undelivered = json!({"undelivered": [
        {"pod": "a", "reason": "FilesDiffer", "message": "its files have another X.509-SVID than its socket (CS1303)"},
        {"pod": "another", "reason": "SocketDiffers", "message": ""},
    ]});
    let found = report(&about(|all| all["identity"]["status"] = undelivered.clone()));
    assert!(found.is_well(), "{found:?}");
    assert_eq!(found.warnings.iter().filter_map(Finding::known_reason).collect::<Vec<_>>(), [Reason::FilesDiffer]);
    let waiting = report(&about(|all| {
        all["identity"]["status"] = undelivered.clone();
        all["pod"]["status"]["initContainerStatuses"][0]["started"] = false.into();
    }));
    assert!(waiting.warnings.is_empty(), "{waiting:?}");
}
