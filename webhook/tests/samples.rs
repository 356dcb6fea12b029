//! What is shipped to be applied is admitted, without a warning.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

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
            let verdict = match document.get("kind").and_then(Value::as_str) {
                Some("TrustDomain") => validate::trust_domain(document, &Value::Null),
                Some("WorkloadIdentity") => validate::workload_identity(document),
                _ => continue,
            };
            assert_eq!(verdict, Verdict::default(), "{}", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 4);
}
