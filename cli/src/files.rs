//! Objects from files, for tests of policies without a cluster.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::core::ObjectMeta;
use serde_json::Value;

use crate::objects::Objects;

/// The objects in these files, in the YAML files of folders and what is below them, or on standard input (`-`); those of other kinds are
/// left out.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Objects> {
    let mut objects = Objects::default();
    for file in &files(paths)? {
        let text = if file == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
        let text = text.with_context(|| format!("reading {}", file.display()))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("{} is not YAML", file.display()))?;
        for (position, document) in documents.into_iter().enumerate().filter(|(_, document)| !document.is_null()) {
            add(&mut objects, document).with_context(|| format!("{}, document {}", file.display(), position + 1))?;
        }
    }
    Ok(objects)
}

/// Folders replaced by the files in them, in the order of their names.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
        let mut entries: Vec<PathBuf> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        entries.sort();
        let is_yaml =
            |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        entries.retain(|path| path.is_dir() || is_yaml(path));
        files.extend(self::files(&entries)?);
    }
    Ok(files)
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
