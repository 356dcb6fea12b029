//! The YAML beside the types is what the types say, and says how `kubectl get` shows them.

#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use countersign_crds::{TrustDomain, WorkloadIdentity};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps,
};
use kube::CustomResourceExt as _;

/// The YAML files of a folder by their names.
fn yaml_files(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".yaml") {
            files.insert(name, fs::read_to_string(entry.path())?);
        }
    }
    Ok(files)
}

#[test]
fn the_yaml_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated = countersign_crds::all().unwrap().into_iter().map(|(name, yaml)| (name.to_owned(), yaml));
    let generated: BTreeMap<String, String> = generated.collect();
    for folder in [root.to_path_buf(), root.join("../manifests/base/crds")] {
        let found = yaml_files(&folder).unwrap();
        let mut stale: BTreeSet<_> = found.keys().chain(generated.keys()).collect();
        stale.retain(|name| found.get(*name) != generated.get(*name));
        assert!(stale.is_empty(), "{stale:?} in {}: run `cargo xtask codegen`", folder.display());
    }
}

fn version(definition: &CustomResourceDefinition) -> &CustomResourceDefinitionVersion {
    let [version] = definition.spec.versions.as_slice() else { panic!("one version") };
    version
}

/// The columns, those that only `-o wide` shows in brackets.
fn columns(definition: &CustomResourceDefinition) -> Vec<(String, &str)> {
    let columns = version(definition).additional_printer_columns.iter().flatten();
    let shown = |name: &str, wide: bool| if wide { format!("({name})") } else { name.to_owned() };
    columns.map(|column| (shown(&column.name, column.priority.unwrap_or(0) > 0), column.json_path.as_str())).collect()
}

/// The type that the schema gives to what a column's path leads to.
fn type_at(schema: &JSONSchemaProps, path: &str) -> Option<String> {
    // Filters choose among a list's items, and hold dots.
    let steps = path.replace("[?(@.type==\"Ready\")]", "[]");
    let mut at = schema;
    for step in steps.split('.').filter(|step| !step.is_empty()) {
        at = at.properties.as_ref()?.get(step.trim_end_matches("[]"))?;
        if step.ends_with("[]") {
            let items = serde_json::to_value(at.items.as_ref()?).ok()?;
            let field = steps.rsplit('.').next()?;
            return Some(items["properties"][field]["type"].as_str()?.to_owned());
        }
    }
    at.type_.clone()
}

// The definitions are derived from literals.
#[test]
fn both_kinds_are_of_the_group_and_version_that_components_use() {
    for definition in [TrustDomain::crd(), WorkloadIdentity::crd()] {
        assert_eq!(definition.spec.group, countersign_contract::API_GROUP);
        assert_eq!(version(&definition).name, countersign_contract::API_VERSION);
    }
}

#[test]
fn both_kinds_have_the_short_names_and_the_category_that_are_documented() {
    for (definition, short) in [(TrustDomain::crd(), "td"), (WorkloadIdentity::crd(), "wid")] {
        let names = definition.spec.names;
        assert_eq!(names.short_names, Some(vec![short.to_owned()]));
        assert_eq!(names.categories, Some(vec!["countersign".to_owned()]));
    }
}

#[test]
fn kubectl_get_shows_whether_a_trust_domain_is_ready_and_why_not() {
    let expected = [
        ("Trust Domain", ".status.trustDomain"),
        ("Ready", ".status.conditions[?(@.type==\"Ready\")].status"),
        ("Reason", ".status.conditions[?(@.type==\"Ready\")].reason"),
        ("Next Switch", ".status.nextSwitch"),
        ("Confirmed", ".status.remote.confirmedAt"),
        ("Next Poll", ".status.remote.nextPoll"),
        ("Last Error", ".status.remote.lastError.reason"),
        ("Sequence", ".status.bundle.sequence"),
        ("(Used By)", ".status.usedBy"),
        ("Age", ".metadata.creationTimestamp"),
    ];
    assert_eq!(columns(&TrustDomain::crd()), expected.map(|(name, path)| (name.to_owned(), path)));
}

#[test]
fn kubectl_get_shows_whether_a_workload_identity_is_ready_why_not_and_for_how_many_pods() {
    let expected = [
        ("Trust Domain", ".spec.trustDomain"),
        ("Path", ".spec.path"),
        ("Ready", ".status.conditions[?(@.type==\"Ready\")].status"),
        ("Reason", ".status.conditions[?(@.type==\"Ready\")].reason"),
        ("Pods", ".status.pods.matched"),
        ("Served", ".status.pods.served"),
        ("(Held)", ".status.pods.held"),
        ("(Not Injected)", ".status.pods.notInjected"),
        ("(Outdated Agents)", ".status.outdatedAgents"),
        ("(Next Expiry)", ".status.nextExpiry"),
        ("Age", ".metadata.creationTimestamp"),
    ];
    assert_eq!(columns(&WorkloadIdentity::crd()), expected.map(|(name, path)| (name.to_owned(), path)));
}

// A column that leads nowhere stays empty, and nobody says so.
#[test]
fn every_column_leads_to_a_field_of_its_type() {
    for definition in [TrustDomain::crd(), WorkloadIdentity::crd()] {
        let version = version(&definition);
        let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        for column in version.additional_printer_columns.iter().flatten() {
            // These have passed, and are printed as ages.
            if [".metadata.creationTimestamp", ".status.remote.confirmedAt"].contains(&column.json_path.as_str()) {
                assert_eq!(column.type_, "date");
                continue;
            }
            // A time is a text to the schema, and to be printed as one: of type `date` it would be an age, and one that is to
            // come `<invalid>`.
            let wanted = column.type_.as_str();
            assert_eq!(type_at(schema, &column.json_path).as_deref(), Some(wanted), "{}", column.name);
        }
    }
}
