//! What is shipped to be applied is what the types read, and says nothing that they do not know.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

use countersign_crds::{TrustDomain, WorkloadIdentity};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Whether everything that is written is there once it was read.
fn kept(written: &Value, read: &Value) -> bool {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            written.iter().all(|(key, value)| read.get(key).is_some_and(|read| kept(value, read)))
        }
        (Value::Array(written), Value::Array(read)) => {
            written.len() == read.len() && written.iter().zip(read).all(|(written, read)| kept(written, read))
        }
        _ => written == read,
    }
}

fn check<T: DeserializeOwned + Serialize>(document: &Value, path: &Path) {
    let object: T =
        serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let read = serde_json::to_value(&object).unwrap();
    assert!(kept(document, &read), "{}: {document:#}\nis read as {read:#}", path.display());
}

#[test]
fn samples_and_demo_are_read_as_they_are_written() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let mut seen = 0;
    for folder in ["samples", "demo"] {
        for entry in fs::read_dir(manifests.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
            for document in &documents {
                match document.get("kind").and_then(Value::as_str) {
                    Some("TrustDomain") => check::<TrustDomain>(document, &path),
                    Some("WorkloadIdentity") => check::<WorkloadIdentity>(document, &path),
                    _ => continue,
                }
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 5);
}
