//! Time of the admission handler for a pod of 8 KB, compared with parsing and writing the same review. `cargo bench -p
//! countersign-webhook --bench inject -- --json` writes one JSON object a line: `name`, `value`, `unit`.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a program for developers")]

use std::{hint::black_box, time::Instant};

use countersign_webhook::{
    admission,
    control_plane::Settings,
    inject::{AgentOptions, AgentResources, PullPolicy, Trigger},
};
use serde_json::{Value, json};

const WARM_UP: usize = 500;
const ROUNDS: usize = 10_000;

fn main() {
    let review = review();
    let options = AgentOptions {
        image: "countersign.local/agent:dev".into(),
        pull_policy: PullPolicy::IfNotPresent,
        resources: AgentResources::default(),
        meshes: vec![],
        log: None,
    };
    let settings = Settings {
        roots: "A".repeat(1600),
        issuer: "10.96.0.7:8443".into(),
        issuer_name: "countersign-issuer.countersign-system.svc".into(),
        audience: "countersign.dev/00000000-0000-0000-0000-000000000001".into(),
        cluster_name: String::new(),
    };
    let handler = measure(|| {
        let request = admission::read(&review).expect("the review is one");
        let answer = admission::mutate(&request, Trigger::NamespaceLabel, &options, Some(&settings));
        black_box(answer.review(&request.uid).to_string());
    });
    let yardstick = measure(|| {
        let value: Value = serde_json::from_slice(&review).expect("the review is JSON");
        black_box(value.to_string());
    });
    let json_lines = std::env::args().any(|argument| argument == "--json");
    for (name, sorted) in [("webhook handler, 8 KB pod", handler), ("parse and write the same review", yardstick)] {
        for (percentile, part) in [("p50", 50), ("p99", 99)] {
            let microseconds = sorted.get(sorted.len() * part / 100).copied().unwrap_or_default() as f64 / 1000.0;
            let name = format!("{name}, {percentile}");
            if json_lines {
                println!("{}", json!({ "name": name, "value": microseconds, "unit": "us" }));
            } else {
                println!("{name:<48} {microseconds:>9.1} µs");
            }
        }
    }
}

/// Nanoseconds of each round, sorted.
fn measure(mut once: impl FnMut()) -> Vec<u64> {
    (0..WARM_UP).for_each(|_| once());
    let mut took: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            once();
            u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
        })
        .collect();
    took.sort_unstable();
    took
}

/// An AdmissionReview whose pod has 8 KB, of three containers.
fn review() -> Vec<u8> {
    let container = |name: &str| {
        let env: Vec<Value> = (0..12)
            .map(|index| json!({ "name": format!("SETTING_{index}"), "value": "a value of some length, as they are" }))
            .collect();
        json!({
            "name": name, "image": "registry.example/team/app@sha256:0123456789abcdef", "env": env, "ports": [{ "containerPort": 8080 }],
            "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } },
            "volumeMounts": [{ "name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true }],
        })
    };
    let padding = |length: usize| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "generateName": "cart-", "namespace": "shop", "labels": { "app": "cart" }, "annotations": { "padding": "x".repeat(length) } },
            "spec": { "initContainers": [container("setup")], "containers": [container("app"), container("side")], "volumes": [{ "name": "kube-api-access-x", "projected": { "sources": [] } }] },
        });
        (pod.to_string().len(), pod)
    };
    let (bare, _) = padding(0);
    let (_, pod) = padding(8192_usize.saturating_sub(bare));
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "00000000-0000-0000-0000-000000000002", "kind": { "group": "", "version": "v1", "kind": "Pod" },
        "resource": { "group": "", "version": "v1", "resource": "pods" }, "namespace": "shop", "operation": "CREATE", "object": pod,
    } })
    .to_string()
    .into_bytes()
}
