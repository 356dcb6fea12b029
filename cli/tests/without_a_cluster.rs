//! What needs no cluster, as the program is run in a pipeline.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use std::{
    path::Path,
    process::{Command, Output},
};

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

fn run(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-countersign"));
    program.args(arguments).env("KUBECONFIG", "/nonexistent").output().unwrap()
}

fn policy_test(account: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.yaml"), POLICY.replace("ACCOUNT", account)).unwrap();
    run(&["policy", "test", "-o", "json", "-f", text(folder.path())])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
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
fn ci_reads_the_result_of_a_policy_test_as_junit() {
    let folder = tempfile::tempdir().unwrap();
    let (file, junit) = (folder.path().join("policy.yaml"), folder.path().join("junit.xml"));
    for (account, code, failures) in [("orders", 0, 0), ("<&", 1, 1)] {
        std::fs::write(&file, POLICY.replace("ACCOUNT", &format!("'{account}'"))).unwrap();
        let ended = run(&["policy", "test", "-f", text(&file), "--junit", text(&junit)]);
        assert_eq!(ended.status.code(), Some(code), "{ended:?}");
        let result = std::fs::read_to_string(&junit).unwrap();
        assert!(result.contains(&format!(r#"<testsuite name="policy" tests="1" failures="{failures}">"#)), "{result}");
        assert!(result.contains(r#"<testcase classname="identity" name="shop/orders""#), "{result}");
        assert_eq!(result.contains("<failure type=\"ServiceAccountNotSelected\""), failures == 1, "{result}");
        assert_eq!(result.contains("&lt;&amp;"), failures == 1, "{result}");
    }
}

/// A pipeline must not take a policy that was not read for one that is well, or that is refused.
#[test]
fn a_policy_that_cannot_be_tested_is_neither_passed_nor_failed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    let absent = run(&["policy", "test", "-f", text(&file)]);
    assert_eq!(absent.status.code(), Some(2), "{absent:?}");
    std::fs::write(&file, "kind: [").unwrap();
    let broken = run(&["policy", "test", "-f", text(&file)]);
    assert_eq!(broken.status.code(), Some(2), "{broken:?}");
    assert!(String::from_utf8_lossy(&broken.stderr).contains(text(&file)), "{broken:?}");
    assert_eq!(run(&["policy", "test"]).status.code(), Some(2), "no file is named");
    std::fs::write(&file, POLICY.replace("ACCOUNT", "orders")).unwrap();
    let unwritten = run(&["policy", "test", "-f", text(&file), "--junit", text(&folder.path().join("a/b"))]);
    assert_eq!(unwritten.status.code(), Some(2), "{unwritten:?}");
}

/// What bash would offer for the last of these words.
fn completed(words: &[&str]) -> Vec<String> {
    let script = String::from_utf8(run(&["completion", "bash"]).stdout).unwrap();
    let call = r#"
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        complete -p kubectl-countersign > /dev/null || exit 1
        _kubectl__countersign "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let ended = Command::new("bash")
        .args(["-c", &(script + call), "bash", "kubectl-countersign"])
        .args(words)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_their_commands_and_options_and_values() {
    assert_eq!(completed(&["pol"]), ["policy"]);
    assert_eq!(completed(&["policy", "te"]), ["test"]);
    assert_eq!(completed(&["policy", "test", "--ju"]), ["--junit"]);
    assert_eq!(completed(&["why", "--output", ""]), ["text", "json", "yaml"]);
}

#[test]
fn other_shells_have_completions_for_the_name_of_the_program() {
    for (shell, registers) in [
        ("zsh", "#compdef kubectl-countersign"),
        ("fish", "complete -c kubectl-countersign"),
        ("elvish", "completion:arg-completer[kubectl-countersign]"),
        ("powershell", "-CommandName 'kubectl-countersign'"),
    ] {
        let ended = run(&["completion", shell]);
        let printed = String::from_utf8(ended.stdout).unwrap();
        assert!(ended.status.success() && printed.contains(registers), "{shell}: {printed}");
        assert!(printed.contains("federation"), "{shell}: {printed}");
    }
}

#[test]
fn without_a_cluster_there_is_no_answer_and_the_exit_code_says_so() {
    let ended = run(&["why", "a"]);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("kubeconfig"), "{ended:?}");
}
