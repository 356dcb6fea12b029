//! What of an object goes into a dump. Of the product's objects everything but values that somebody else put there; of workloads only
//! what Countersign decides by and what became of it.

use countersign_contract::{metadata::PREFIX, pod::AGENT};
use serde_json::{Map, Value, json};

use super::redact::VALUE;

/// Annotations of others whose values are known to be harmless and good to know.
const KEPT_ANNOTATIONS: [&str; 2] = ["deployment.kubernetes.io/revision", "kubernetes.io/config.mirror"];

/// Environment variables of which the values are kept: those of the product.
const KEPT_VARIABLES: [&str; 3] = ["COUNTERSIGN_", "SPIFFE_", "POD_"];

/// ConfigMaps whose contents are kept.
const KEPT_CONFIG_MAPS: [&str; 4] = ["countersign-control-plane", "countersign-agent", "remote.", "bundle."];

/// An object of the product.
pub(super) fn own(mut object: Value) -> Value {
    metadata(&mut object);
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if object.get("kind").is_some_and(|kind| kind == "ConfigMap")
        && !KEPT_CONFIG_MAPS.iter().any(|kept| name.starts_with(kept))
    {
        remove(&mut object, &["data", "binaryData"]);
    }
    variables(&mut object);
    object
}

/// A Secret, of which only the metadata was read: that it is there, and since when.
pub(super) fn secret(object: &Value) -> Value {
    let get = |name: &str| object.pointer(&format!("/metadata/{name}")).cloned().unwrap_or_default();
    json!({
        "kind": "Secret",
        "metadata": {
            "name": get("name"), "namespace": get("namespace"), "uid": get("uid"),
            "creationTimestamp": get("creationTimestamp"), "resourceVersion": get("resourceVersion"),
        },
    })
}

/// A pod of a workload: neither commands nor variables nor what is in its volumes, but for the agent's.
pub(super) fn workload_pod(mut pod: Value) -> Value {
    metadata(&mut pod);
    let containers = |pod: &Value, list: &str| -> Vec<Value> {
        let found = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
        found.into_iter().flatten().map(container).collect()
    };
    let keep = |pod: &Value, name: &str| pod.pointer(&format!("/spec/{name}")).cloned().unwrap_or_default();
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let volumes: Vec<Value> = volumes.map(volume).collect();
    let spec = json!({
        "serviceAccountName": keep(&pod, "serviceAccountName"),
        "nodeName": keep(&pod, "nodeName"),
        "hostNetwork": keep(&pod, "hostNetwork"),
        "securityContext": keep(&pod, "securityContext"),
        "restartPolicy": keep(&pod, "restartPolicy"),
        "initContainers": containers(&pod, "initContainers"),
        "containers": containers(&pod, "containers"),
        "volumes": volumes,
    });
    let part = |name: &str| pod.get(name).cloned().unwrap_or_default();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": part("metadata"), "spec": spec, "status": part("status") })
}

/// A namespace or a node: what it is called, its labels, and whether it is well.
pub(super) fn labels(mut object: Value) -> Value {
    metadata(&mut object);
    let status = object.get("status");
    let part = |name: &str| status.and_then(|status| status.get(name)).cloned().unwrap_or_default();
    let own = |name: &str| object.get(name).cloned().unwrap_or_default();
    json!({
        "kind": own("kind"), "metadata": own("metadata"),
        "status": { "phase": part("phase"), "nodeInfo": part("nodeInfo"), "conditions": part("conditions") },
    })
}

fn container(container: &Value) -> Value {
    if container.get("name").is_some_and(|name| name == AGENT) {
        let mut agent = container.clone();
        variables(&mut agent);
        return agent;
    }
    let kept =
        ["name", "image", "imagePullPolicy", "restartPolicy", "ports", "resources", "securityContext", "volumeMounts"];
    Value::Object(kept.iter().filter_map(|key| Some(((*key).to_owned(), container.get(*key)?.clone()))).collect())
}

/// The volumes of the product as they are, of others the name alone.
fn volume(volume: &Value) -> Value {
    let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
    if name.starts_with("countersign-") { volume.clone() } else { json!({ "name": name }) }
}

fn metadata(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        // It holds the whole object, with every value that is removed elsewhere.
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        for (key, value) in annotations.iter_mut() {
            if !key.starts_with(PREFIX) && !KEPT_ANNOTATIONS.contains(&key.as_str()) {
                *value = VALUE.into();
            }
        }
    }
}

fn remove(object: &mut Value, fields: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        fields.iter().for_each(|field| drop(object.remove(*field)));
    }
}

/// Values of environment variables that are not the product's, and annotations of templates, wherever they are in an object.
fn variables(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(variables),
        Value::Object(fields) => {
            if let Some(Value::Array(env)) = fields.get_mut("env") {
                env.iter_mut().filter_map(Value::as_object_mut).for_each(variable);
            }
            let has_template = fields.contains_key("template");
            if has_template && let Some(template) = fields.get_mut("template") {
                metadata(template);
            }
            fields.values_mut().for_each(variables);
        }
        _ => {}
    }
}

fn variable(variable: &mut Map<String, Value>) {
    let name = variable.get("name").and_then(Value::as_str).unwrap_or_default();
    let is_kept = KEPT_VARIABLES.iter().any(|prefix| name.starts_with(prefix));
    if !is_kept && let Some(value) = variable.get_mut("value") {
        *value = VALUE.into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{own, secret, workload_pod};

    #[test]
    fn values_of_others_are_removed_from_our_objects() {
        let deployment = json!({
            "kind": "Deployment",
            "metadata": {
                "name": "countersign-operator", "managedFields": [{}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "hunter22",
                    "vault.example/password": "hunter22",
                    "countersign.dev/hold": "true",
                },
            },
            "spec": { "template": {
                "metadata": { "annotations": { "other": "hunter22" } },
                "spec": { "containers": [{ "env": [
                    { "name": "COUNTERSIGN_NAMESPACE", "value": "a" },
                    { "name": "HTTPS_PROXY", "value": "https://u:hunter22@proxy" },
                ] }] },
            } },
        });
        let reduced = own(deployment);
        let text = reduced.to_string();
        assert!(!text.contains("hunter22") && !text.contains("managedFields"), "{text}");
        assert_eq!(reduced["metadata"]["annotations"]["countersign.dev/hold"], "true");
        assert_eq!(reduced.pointer("/spec/template/spec/containers/0/env/0/value").unwrap(), "a");
    }

    #[test]
    fn config_maps_of_others_have_no_contents() {
        let of = |name: &str| own(json!({ "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "b" } }));
        assert_eq!(of("settings").get("data"), None);
        assert_eq!(of("countersign-control-plane")["data"]["a"], "b");
    }

    #[test]
    fn of_a_secret_nothing_but_its_name_and_age_is_kept() {
        let found = json!({
            "metadata": { "name": "a", "namespace": "b", "annotations": { "x": "hunter22" } },
            "data": { "key": "hunter22" },
        });
        let reduced = secret(&found);
        assert!(!reduced.to_string().contains("hunter22"), "{reduced}");
        assert_eq!(reduced["metadata"]["name"], "a");
    }

    #[test]
    fn of_a_workload_neither_commands_nor_values_are_kept() {
        let container = json!({
            "name": "app", "image": "app:1", "command": ["run", "--password=hunter22"], "args": ["hunter22"],
            "env": [{ "name": "COUNTERSIGN_X", "value": "hunter22" }],
            "livenessProbe": { "httpGet": { "httpHeaders": [{ "value": "hunter22" }] } },
        });
        let pod = json!({
            "metadata": { "name": "a", "annotations": { "countersign.dev/injected": "sidecar", "other": "hunter22" } },
            "spec": {
                "serviceAccountName": "orders",
                "containers": [container],
                "initContainers": [{ "name": "countersign-agent", "args": ["run"] }],
                "volumes": [
                    { "name": "x", "csi": { "volumeAttributes": { "secret": "hunter22" } } },
                    { "name": "countersign-identity", "emptyDir": { "medium": "Memory" } },
                ],
            },
            "status": { "phase": "Running" },
        });
        let reduced = workload_pod(pod);
        let text = reduced.to_string();
        assert!(!text.contains("hunter22"), "{text}");
        for kept in ["orders", "app:1", "countersign-agent", "Memory", "Running", "sidecar"] {
            assert!(text.contains(kept), "{kept} is not in {text}");
        }
    }
}
