//! The custom resource definitions: whether they are there, served, and those of this build.

use countersign_crds::{TrustDomain, WorkloadIdentity};
use countersign_reasons::Reason;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use kube::{CustomResourceExt as _, ResourceExt as _};

use super::category::Category;
use crate::{cluster::Cluster, finding::Finding, reading::Reading};

/// The command that installs them.
const APPLY: &str = "kubectl apply --server-side -k manifests/base\nwith the manifests of the release that should run";

/// A definition as it should be, and as it is.
#[derive(Debug)]
pub(super) struct Seen {
    name: &'static str,
    wanted: CustomResourceDefinition,
    found: Reading<CustomResourceDefinition>,
}

pub(super) async fn observe(cluster: &Cluster) -> Vec<Seen> {
    let mut seen = Vec::new();
    for (name, wanted) in wanted() {
        let found = cluster.read(&wanted.name_any()).await;
        seen.push(Seen { name, wanted, found });
    }
    seen
}

fn wanted() -> [(&'static str, CustomResourceDefinition); 2] {
    [("domains", TrustDomain::crd()), ("identities", WorkloadIdentity::crd())]
}

pub(super) fn category(seen: &[Seen]) -> Category {
    Category::new("custom resource definitions", seen.iter().map(check).collect())
}

fn check(Seen { name, wanted, found }: &Seen) -> Finding {
    let full = wanted.name_any();
    let found = match found {
        Reading::Found(found) => found,
        Reading::Absent => {
            return Finding::failed(name, Reason::DefinitionMissing, format!("there is no definition {full}"))
                .with_mends(APPLY);
        }
        other => return other.gap().map_or_else(|| Finding::ok(name, ""), |gap| Finding::gap(name, gap)),
    };
    if !is_established(found) {
        let message = format!("{full} is not served: {}", why_not_established(found));
        return Finding::failed(name, Reason::DefinitionNotEstablished, message)
            .with_mends(format!("kubectl describe crd {full}"));
    }
    match difference(wanted, found) {
        None => Finding::ok(name, format!("{full} is served, and is that of this build")),
        Some(difference) => {
            let version = env!("CARGO_PKG_VERSION");
            let message = format!("{full} is not that of this build ({version}): {difference}");
            Finding::warning(name, Reason::DefinitionDiffers, message)
                .with_mends(format!("use kubectl countersign of the installed release, or:\n{APPLY}"))
        }
    }
}

fn is_established(found: &CustomResourceDefinition) -> bool {
    let conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

fn why_not_established(found: &CustomResourceDefinition) -> String {
    let conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let messages = conditions
        .filter(|condition| condition.status != "True")
        .filter_map(|condition| condition.message.clone())
        .filter(|message| !message.is_empty());
    let messages: Vec<String> = messages.collect();
    if messages.is_empty() { "the API server has not accepted it yet".to_owned() } else { messages.join("; ") }
}

/// The first difference that affects which objects are accepted.
fn difference(wanted: &CustomResourceDefinition, found: &CustomResourceDefinition) -> Option<String> {
    for version in &wanted.spec.versions {
        let Some(other) = found.spec.versions.iter().find(|other| other.name == version.name) else {
            return Some(format!("it has no version {}", version.name));
        };
        if !other.served {
            return Some(format!("version {} is not served", version.name));
        }
        if let Some(path) = first_difference(version, other) {
            return Some(format!("the schema of {} differs at {path}", version.name));
        }
    }
    None
}

/// The JSON path of the first difference.
fn first_difference(
    wanted: &CustomResourceDefinitionVersion,
    found: &CustomResourceDefinitionVersion,
) -> Option<String> {
    let mut wanted = serde_json::to_value(&wanted.schema).ok()?;
    countersign_crds::forbid_null(&mut wanted);
    let found = serde_json::to_value(&found.schema).ok()?;
    differing(&wanted, &found, String::new())
}

fn differing(wanted: &serde_json::Value, found: &serde_json::Value, path: String) -> Option<String> {
    use serde_json::Value::{Array, Object};
    match (wanted, found) {
        (Object(wanted), Object(found)) => {
            let keys = wanted.keys().chain(found.keys().filter(|key| !wanted.contains_key(*key)));
            // A changed text is not a changed schema.
            keys.filter(|key| *key != "description" || !wanted.get(*key).is_some_and(serde_json::Value::is_string))
                .find_map(|key| match (wanted.get(key), found.get(key)) {
                    (Some(wanted), Some(found)) => differing(wanted, found, below(&path, key)),
                    _ => Some(below(&path, key)),
                })
        }
        (Array(wanted), Array(found)) if wanted.len() == found.len() => {
            let pairs = wanted.iter().zip(found).enumerate();
            pairs.into_iter().find_map(|(at, (wanted, found))| differing(wanted, found, format!("{path}[{at}]")))
        }
        _ => (wanted != found).then_some(path),
    }
}

/// Fields of the resource, without the words of the schema around them.
fn below(path: &str, key: &str) -> String {
    match key {
        "openAPIV3Schema" | "properties" => path.to_owned(),
        key if path.is_empty() => key.to_owned(),
        key => format!("{path}.{key}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Seen, category, check, wanted};
    use crate::{output::Mark, reading::Reading};

    /// A definition as the API server has it: `change` is applied to its JSON.
    fn seen(change: impl FnOnce(&mut serde_json::Value)) -> Seen {
        let [(name, wanted), _] = wanted();
        let mut found = serde_json::to_value(&wanted).unwrap();
        countersign_crds::forbid_null(&mut found);
        found["status"] = json!({ "conditions": [{ "type": "Established", "status": "True" }] });
        change(&mut found);
        Seen { name, wanted, found: Reading::Found(serde_json::from_value(found).unwrap()) }
    }

    #[test]
    fn the_definition_of_this_build_passes() {
        let check = check(&seen(|_| {}));
        assert_eq!(check.mark, Mark::Ok, "{check:?}");
    }

    #[test]
    fn one_that_is_not_established_fails() {
        let check = check(&seen(|found| found["status"]["conditions"][0]["status"] = "False".into()));
        assert_eq!(check.code(), Some("CS5011"), "{check:?}");
    }

    #[test]
    fn a_schema_of_another_build_is_a_warning_that_names_the_field() {
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let check = check(&seen(|found| {
            found.pointer_mut(spec).unwrap().as_object_mut().unwrap().remove("remote");
        }));
        assert_eq!(check.code(), Some("CS5012"), "{check:?}");
        assert!(check.message.contains("spec.remote"), "{check:?}");
    }

    #[test]
    fn changed_descriptions_do_not_matter() {
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/description";
        let check = check(&seen(|found| *found.pointer_mut(spec).unwrap() = "other words".into()));
        assert_eq!(check.mark, Mark::Ok, "{check:?}");
    }

    #[test]
    fn without_definitions_the_product_is_not_installed() {
        let [(name, wanted), _] = wanted();
        let category = category(&[Seen { name, wanted, found: Reading::Absent }]);
        assert_eq!(category.checks[0].code(), Some("CS5010"));
    }
}
