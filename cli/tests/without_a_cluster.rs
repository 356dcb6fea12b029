//! What needs no cluster, as the program is run in a pipeline.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::process::{Command, Output};

const POLICY: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {countersign.dev/inject: sidecar}}
---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {name: shop.example}
spec:
  authority: {}
  grants:
  - {namespaces: {matchNames: [shop]}, paths: ['/ns/{namespace}/**']}
---
apiVersion: countersign.dev/v1alpha1
kind: WorkloadIdentity
metadata: {name: orders, namespace: shop}
spec: {trustDomain: shop.example, selector: {serviceAccounts: [orders]}}
---
apiVersion: v1
kind: Pod
metadata: {name: orders, namespace: shop}
spec: {serviceAccountName: ACCOUNT, containers: [{name: app}]}
";

fn policy_test(account: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, POLICY.replace("ACCOUNT", account)).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"));
    program
        .args(["policy", "test", "-o", "json", "-f"])
        .arg(folder.path())
        .env("KUBECONFIG", "/nonexistent")
        .output()
        .unwrap()
}

#[test]
fn a_pod_without_an_identity_fails_the_test_of_a_policy() {
    let passed = policy_test("orders");
    assert_eq!(passed.status.code(), Some(0), "{passed:?}");
    let report: serde_json::Value = serde_json::from_slice(&passed.stdout).unwrap();
    assert_eq!(report["pods"][0]["ids"][0], "spiffe://shop.example/ns/shop/sa/orders");

    let failed = policy_test("another");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let report: serde_json::Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(report["pods"][0]["cause"]["reason"], "ServiceAccountNotSelected");
}

#[test]
fn without_a_cluster_there_is_no_answer_and_the_exit_code_says_so() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"));
    let ended = program.args(["why", "a"]).env("KUBECONFIG", "/nonexistent").output().unwrap();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("kubeconfig"), "{ended:?}");
}
