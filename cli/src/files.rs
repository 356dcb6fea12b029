//! Objects from files, for tests of policies without a cluster.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::core::ObjectMeta;
use serde_json::Value;

use crate::objects::Objects;

/// The objects in these files; those of other kinds are left out.
pub(crate) fn read(files: &[PathBuf]) -> Result<Objects> {
    let mut objects = Objects::default();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("{} is not YAML", file.display()))?;
        for (position, document) in documents.into_iter().enumerate().filter(|(_, document)| !document.is_null()) {
            add(&mut objects, document).with_context(|| format!("{}, document {}", file.display(), position + 1))?;
        }
    }
    Ok(objects)
}

fn add(objects: &mut Objects, document: Value) -> Result<()> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    match (text("/apiVersion").as_str(), text("/kind").as_str()) {
        ("countersign.dev/v1alpha1", "TrustDomain") => objects.domains.push(serde_json::from_value(document)?),
        ("countersign.dev/v1alpha1", "WorkloadIdentity") => objects.identities.push(serde_json::from_value(document)?),
        ("v1", "Namespace") => objects.namespaces.push(serde_json::from_value(document)?),
        ("v1", "Pod") => objects.pods.push(serde_json::from_value(document)?),
        ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet") | ("batch/v1", "Job") => {
            objects.pods.push(pod_of(&document, "/spec/template")?);
        }
        ("batch/v1", "CronJob") => objects.pods.push(pod_of(&document, "/spec/jobTemplate/spec/template")?),
        _ => {}
    }
    Ok(())
}

/// A pod of a template, with the name of what makes it.
fn pod_of(document: &Value, template: &str) -> Result<Pod> {
    let found = document.pointer(template).cloned().unwrap_or_default();
    let template: PodTemplateSpec = serde_json::from_value(found)?;
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let metadata = ObjectMeta {
        name: text("/metadata/name"),
        namespace: text("/metadata/namespace"),
        ..template.metadata.unwrap_or_default()
    };
    Ok(Pod { metadata, spec: template.spec, status: None })
}
