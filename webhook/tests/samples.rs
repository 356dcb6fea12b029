//! The shipped samples and the demo are admitted without warnings.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

use countersign_webhook::validate::{self, Verdict};
use serde_json::Value;

#[test]
fn samples_and_demo_are_admitted() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let files = ["samples", "demo"].iter().flat_map(|folder| fs::read_dir(manifests.join(folder)).unwrap());
    let mut seen = 0;
    for path in files.map(|entry| entry.unwrap().path()) {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
        for document in &documents {
            let kind = document.get("kind").and_then(Value::as_str).unwrap();
            let Some((verdict, _)) = validate::resource(kind, document, &Value::Null) else { continue };
            assert_eq!(verdict, Verdict::default(), "{}", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 5);
}

/// It offers nothing to network attackers, and shares no account with components that are reachable.
#[test]
fn the_controller_of_the_ca_has_no_port_and_an_account_of_its_own() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/base/webhook");
    let documents = |file: &str| -> Vec<Value> {
        serde_saphyr::from_multiple(&fs::read_to_string(manifests.join(file)).unwrap()).unwrap()
    };
    let pod = |file: &str| {
        let mut all = documents(file).into_iter().filter(|document| document["kind"] == "Deployment");
        all.next().unwrap()["spec"]["template"]["spec"].clone()
    };
    let (ca, webhook) = (pod("ca.yaml"), pod("deployment.yaml"));
    assert!(documents("ca.yaml").iter().all(|document| document["kind"] != "Service"));
    assert_ne!(ca["serviceAccountName"], webhook["serviceAccountName"]);
    let container = &ca["containers"][0];
    assert!(container["ports"].is_null());
    for probe in ["readinessProbe", "livenessProbe"] {
        assert!(container[probe]["exec"].is_object() && container[probe]["httpGet"].is_null(), "{probe}");
    }
    assert_eq!(container["image"], webhook["containers"][0]["image"]);
}

/// Earlier releases let the webhook's account patch whole configurations. It reads now what warnings depend on, and writes nothing.
#[test]
fn the_rights_that_earlier_releases_gave_the_webhook_are_taken_back() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/base/webhook/rbac.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(file).unwrap()).unwrap();
    let role = documents.iter().find(|document| document["kind"] == "ClusterRole").unwrap();
    assert_eq!(role["metadata"]["name"], "countersign-webhook");
    let rules = role["rules"].as_array().unwrap();
    assert!(!rules.is_empty());
    for rule in rules {
        assert_eq!(rule["verbs"], serde_json::json!(["get", "list", "watch"]), "{rule}");
        assert_ne!(rule["apiGroups"], serde_json::json!(["admissionregistration.k8s.io"]));
        let resources = rule["resources"].as_array().unwrap();
        assert!(!resources.contains(&"secrets".into()) && !resources.contains(&"*".into()), "{rule}");
    }
}
