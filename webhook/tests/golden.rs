//! The patch of each kind of pod, as raw JSON. The snapshots cover every injected field: `cargo insta review` shows the
//! effect of a change.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{apply, container, options, outcome, patch, pod, settings};
use countersign_webhook::inject::{AgentOptions, Outcome, Trigger, inject};
use serde_json::{Value, json};

fn annotated(mut pod: Value, key: &str, value: &str) -> Value {
    pod["metadata"]["annotations"] = json!({ key: value });
    pod
}

fn warnings(pod: &Value) -> usize {
    texts(pod).len()
}

fn texts(pod: &Value) -> Vec<String> {
    match outcome(pod) {
        Ok(Outcome::Inject { warnings, .. }) => {
            // Kubernetes may truncate longer ones.
            assert!(warnings.iter().all(|warning| warning.len() <= 256), "{warnings:?}");
            warnings
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_pod() {
    insta::assert_json_snapshot!(patch(&pod()));
    assert_eq!(warnings(&pod()), 1);
}

#[test]
fn with_fs_group() {
    let mut pod = pod();
    pod["spec"]["securityContext"] = json!({ "fsGroup": 2000 });
    insta::assert_json_snapshot!(patch(&pod));
    assert_eq!(warnings(&pod), 0);
}

#[test]
fn with_a_shared_uid() {
    let mut pod = pod();
    pod["spec"]["securityContext"] = json!({ "runAsUser": 1000, "fsGroup": 2000 });
    insta::assert_json_snapshot!(patch(&pod));
    assert_eq!(warnings(&pod), 0);
}

#[test]
fn per_container() {
    let mut pod = annotated(pod(), "countersign.dev/per-container", "true");
    pod["spec"]["containers"] = json!([container("app"), container("side")]);
    insta::assert_json_snapshot!(patch(&pod));
}

#[test]
fn host_network() {
    let mut pod = pod();
    pod["spec"]["hostNetwork"] = json!(true);
    pod["spec"]["dnsPolicy"] = json!("None");
    // The issuer is found by its address: nothing depends on the pod's network or DNS.
    assert_eq!(patch(&pod), patch(&common::pod()));
}

#[test]
fn named_containers() {
    let mut pod = annotated(pod(), "countersign.dev/containers", "app");
    pod["spec"]["containers"] = json!([container("side"), container("app")]);
    pod["spec"]["initContainers"] = json!([container("setup")]);
    insta::assert_json_snapshot!(patch(&pod));
}

#[test]
fn not_held() {
    let pod = annotated(pod(), "countersign.dev/hold", "false");
    insta::assert_json_snapshot!(patch(&pod));
}

#[test]
fn in_a_mesh_of_istio() {
    let mut pod = annotated(pod(), "traffic.sidecar.istio.io/excludeOutboundIPRanges", "192.0.2.0/24");
    pod["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("true");
    insta::assert_json_snapshot!(annotations(&pod));
    assert_eq!(patch(&apply(&pod, &patch(&pod))), Vec::<Value>::new());
}

#[test]
fn in_a_mesh_of_linkerd() {
    let mut pod = annotated(pod(), "config.linkerd.io/skip-outbound-ports", "25,587");
    pod["metadata"]["annotations"]["linkerd.io/inject"] = json!("enabled");
    insta::assert_json_snapshot!(annotations(&pod));
    assert_eq!(patch(&apply(&pod, &patch(&pod))), Vec::<Value>::new());
}

/// The operations on annotations.
fn annotations(pod: &Value) -> Vec<Value> {
    let about = |operation: &Value| operation["path"].as_str().unwrap().starts_with("/metadata/annotations");
    patch(pod).into_iter().filter(about).collect()
}

#[test]
fn with_a_part_mounted_elsewhere() {
    let mut pod = pod();
    pod["spec"]["securityContext"] = json!({ "runAsUser": 1000 });
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        { "name": "countersign-identity", "mountPath": "/etc/tls.crt", "subPath": "credentials/tls.crt", "readOnly": true },
        { "name": "countersign-identity", "mountPath": "/etc/tls.key", "subPathExpr": "credentials/tls.key", "readOnly": true },
    ]);
    insta::assert_json_snapshot!(patch(&pod));
    let texts = texts(&pod);
    assert_eq!(texts.len(), 2);
    assert!(texts[0].contains("container `app`") && texts[0].contains("/etc/tls.crt"), "{texts:?}");
    assert!(texts.iter().all(|text| text.contains("never refreshes")), "{texts:?}");
    assert_eq!(patch(&apply(&pod, &patch(&pod))), Vec::<Value>::new());
}

#[test]
fn processes_that_see_each_other_are_warned_of() {
    for (field, named) in [("shareProcessNamespace", "/proc"), ("hostPID", "node")] {
        let mut pod = pod();
        pod["spec"]["securityContext"] = json!({ "runAsUser": 1000 });
        let before = patch(&pod);
        assert_eq!(warnings(&pod), 0);
        pod["spec"][field] = json!(true);
        let texts = texts(&pod);
        assert!(texts.len() == 1 && texts[0].contains(field) && texts[0].contains(named), "{texts:?}");
        assert_eq!(patch(&pod), before);
        pod["spec"][field] = json!(false);
        assert_eq!(warnings(&pod), 0);
    }
}

#[test]
fn two_init_containers() {
    let mut pod = pod();
    pod["spec"]["initContainers"] = json!([container("first"), container("second")]);
    insta::assert_json_snapshot!(patch(&pod));
    let names: Vec<_> = apply(&pod, &patch(&pod))["spec"]["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(names, ["countersign-agent", "first", "second"]);
}

#[test]
fn with_its_own_environment() {
    let mut pod = pod();
    pod["spec"]["containers"][0]["env"] = json!([{ "name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///mine.sock" }]);
    pod["spec"]["containers"][0].as_object_mut().unwrap().remove("volumeMounts");
    pod["spec"].as_object_mut().unwrap().remove("volumes");
    insta::assert_json_snapshot!(patch(&pod));
}

#[test]
fn fields_unknown_to_this_program_survive() {
    let mut pod = pod();
    pod["spec"]["inventedOfPod"] = json!({ "deep": [1, { "x": null }] });
    pod["spec"]["containers"][0]["inventedOfContainer"] = json!("kept");
    pod["spec"]["volumes"][0]["inventedOfVolume"] = json!(1.5);
    pod["invented"] = json!([]);
    let patched = apply(&pod, &patch(&pod));
    assert_eq!(patched["spec"]["inventedOfPod"], pod["spec"]["inventedOfPod"]);
    assert_eq!(patched["spec"]["containers"][0]["inventedOfContainer"], "kept");
    assert_eq!(patched["spec"]["volumes"][0], pod["spec"]["volumes"][0]);
    assert_eq!(patched["invented"], json!([]));
    assert!(patch(&pod).iter().all(|operation| operation["op"] == "add"));
}

#[test]
fn agents_log_what_the_installation_wants() {
    let options = AgentOptions { log: Some("debug".to_owned()), ..options() };
    let Ok(Outcome::Inject { operations, .. }) = inject(&pod(), Trigger::NamespaceLabel, &options, &settings()) else {
        panic!("a plain pod is injected")
    };
    let env = &apply(&pod(), &operations)["spec"]["initContainers"][0]["env"];
    let mut quiet = common::injected(&pod())["spec"]["initContainers"][0]["env"].clone();
    quiet.as_array_mut().unwrap().push(json!({ "name": "COUNTERSIGN_LOG", "value": "debug" }));
    assert_eq!(*env, quiet);
}
