//! A pod, an installation, and a patch applied as the API server applies it.
#![allow(dead_code, reason = "each test file uses its part")]

use countersign_webhook::{
    admission::{self, Answer},
    control_plane::Settings,
    inject::{AgentOptions, AgentResources, Outcome, PullPolicy, Refusal, Trigger, inject},
};
use serde_json::{Value, json};

pub(crate) fn options() -> AgentOptions {
    AgentOptions {
        image: "countersign.local/agent:dev".into(),
        pull_policy: PullPolicy::IfNotPresent,
        resources: AgentResources::default(),
        meshes: vec![],
        log: None,
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        roots: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
        issuer: "10.96.0.7:8443".into(),
        issuer_name: "countersign-issuer.countersign-system.svc".into(),
        audience: "countersign.dev/00000000-0000-0000-0000-000000000001".into(),
        cluster_name: String::new(),
    }
}

/// A pod as received: with what the API server and the ServiceAccount plugin have added by then.
pub(crate) fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": "cart-", "namespace": "shop", "labels": { "app": "cart" } },
        "spec": {
            "containers": [container("app")],
            "serviceAccountName": "cart",
            "volumes": [{ "name": "kube-api-access-x", "projected": { "sources": [] } }],
        },
    })
}

pub(crate) fn container(name: &str) -> Value {
    json!({
        "name": name,
        "image": "app:1",
        "volumeMounts": [{ "name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true }],
    })
}

pub(crate) fn outcome(pod: &Value) -> Result<Outcome, Refusal> {
    inject(pod, Trigger::NamespaceLabel, &options(), &settings())
}

/// An AdmissionReview of the pod, as bytes.
pub(crate) fn review(pod: &Value) -> Vec<u8> {
    let request = json!({ "uid": "u1", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE", "object": pod });
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request })
        .to_string()
        .into_bytes()
}

/// The answer to a review of the pod, of which only a part is read.
pub(crate) fn answer(pod: &Value) -> Answer {
    let review = review(pod);
    admission::mutate(&admission::read(&review).unwrap(), Trigger::NamespaceLabel, &options(), Some(&settings()))
}

pub(crate) fn patch(pod: &Value) -> Vec<Value> {
    match outcome(pod) {
        Ok(Outcome::Inject { operations, .. }) => operations,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn apply(pod: &Value, operations: &[Value]) -> Value {
    let mut patched = pod.clone();
    let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
    json_patch::patch(&mut patched, &patch).unwrap();
    patched
}

pub(crate) fn injected(pod: &Value) -> Value {
    apply(pod, &patch(pod))
}

/// Applies what the API server's defaults and other mutators add to a container between two calls.
pub(crate) fn with_defaults(mut pod: Value) -> Value {
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            container["terminationMessagePath"] = json!("/dev/termination-log");
            container["securityContext"]["seLinuxOptions"] = json!({ "level": "s0" });
            if let Some(env) = container["env"].as_array_mut() {
                env.push(json!({ "name": "HTTP_PROXY", "value": "http://proxy" }));
            }
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.push(json!({ "name": "others", "mountPath": "/others" }));
            }
            container["resources"]["limits"]["ephemeral-storage"] = json!("1Gi");
        }
    }
    pod
}
