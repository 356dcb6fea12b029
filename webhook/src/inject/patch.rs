//! The JSON patch (RFC 6902). It adds only what is missing, so that it never changes a field that belongs to others.

use serde_json::{Map, Value, json};

use super::{
    decide::InjectionRequest,
    existing_injection::{ExistingAgent, has_mount},
    injected_pod::InjectedPod,
    names::APPLICATION_ENV,
    pod_fields::{annotation, list, name, named},
};

/// The operations that give the pod everything of `injected`, in the order of application. Indices refer to the pod as
/// received, so the agent is inserted last.
pub(super) fn operations(
    pod: &Value,
    request: &InjectionRequest,
    injected: &InjectedPod,
    agent: ExistingAgent,
    annotations: &[(&str, String)],
) -> Vec<Value> {
    let mut operations = Vec::with_capacity(16);
    for container in &request.containers {
        let (raw, pointer) = (container.of(pod), container.pointer());
        let mount = injected.mount(container);
        let mounts = if has_mount(raw, &mount) { vec![] } else { vec![mount] };
        append(&mut operations, raw, &pointer, "volumeMounts", mounts);
        let have = list(raw, "/env");
        let missing = APPLICATION_ENV.iter().filter(|(variable, _)| named(have, variable).is_none());
        let env = missing.map(|(variable, value)| json!({ "name": variable, "value": value })).collect();
        append(&mut operations, raw, &pointer, "env", env);
    }
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let have = list(spec, "/volumes");
    let volumes = injected.volumes.iter().filter(|volume| named(have, name(volume)).is_none()).cloned().collect();
    append(&mut operations, spec, "/spec", "volumes", volumes);
    agent_first(&mut operations, spec, injected, agent);
    annotate(&mut operations, pod, annotations);
    operations
}

fn append(operations: &mut Vec<Value>, parent: &Value, pointer: &str, key: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    if parent.get(key).is_some_and(Value::is_array) {
        operations.extend(items.into_iter().map(|item| add(format!("{pointer}/{key}/-"), item)));
    } else {
        operations.push(add(format!("{pointer}/{key}"), Value::Array(items)));
    }
}

fn agent_first(operations: &mut Vec<Value>, spec: &Value, injected: &InjectedPod, agent: ExistingAgent) {
    const FIRST: &str = "/spec/initContainers/0";
    match agent {
        ExistingAgent::UpToDate(0) => {}
        // Another mutator inserted an init container before the agent: it needs the identity as well.
        ExistingAgent::UpToDate(index) => {
            operations.push(json!({ "op": "move", "from": format!("/spec/initContainers/{index}"), "path": FIRST }));
        }
        ExistingAgent::Outdated(index, replacement) => {
            operations.push(json!({ "op": "remove", "path": format!("/spec/initContainers/{index}") }));
            operations.push(add(FIRST.to_owned(), replacement));
        }
        ExistingAgent::Absent if spec.get("initContainers").is_some_and(Value::is_array) => {
            operations.push(add(FIRST.to_owned(), injected.agent.clone()));
        }
        ExistingAgent::Absent => operations.push(add("/spec/initContainers".to_owned(), json!([injected.agent]))),
    }
}

fn annotate(operations: &mut Vec<Value>, pod: &Value, annotations: &[(&str, String)]) {
    if pod.pointer("/metadata/annotations").is_some_and(Value::is_object) {
        for (key, value) in annotations.iter().filter(|(key, value)| annotation(pod, key) != Some(value)) {
            let key = key.replace('~', "~0").replace('/', "~1");
            operations.push(add(format!("/metadata/annotations/{key}"), json!(value)));
        }
    } else {
        let annotations: Map<String, Value> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        operations.push(add("/metadata/annotations".to_owned(), Value::Object(annotations)));
    }
}

fn add(path: String, value: Value) -> Value {
    json!({ "op": "add", "path": path, "value": value })
}
