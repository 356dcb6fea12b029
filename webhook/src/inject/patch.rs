//! The patch (RFC 6902): only what is missing, so that it never touches a field it does not own.

use serde_json::{Map, Value, json};

use super::{
    arrived::{Arrived, has_mount},
    decide::Wanted,
    fields::{annotation, list, name, named},
    shape::{APPLICATION_ENV, Shape},
};

/// What makes of the pod one that has all of `shape`, in the order of application. Indices are those of the pod as it
/// arrived: the agent moves in last.
pub(super) fn operations(
    pod: &Value,
    wanted: &Wanted,
    shape: &Shape,
    agent: Arrived,
    annotations: &[(&str, String)],
) -> Vec<Value> {
    let mut operations = Vec::with_capacity(16);
    for container in &wanted.containers {
        let (raw, pointer) = (container.of(pod), container.pointer());
        let mount = shape.mount(container);
        let mounts = if has_mount(raw, &mount) { vec![] } else { vec![mount] };
        append(&mut operations, raw, &pointer, "volumeMounts", mounts);
        let have = list(raw, "/env");
        let missing = APPLICATION_ENV.iter().filter(|(variable, _)| named(have, variable).is_none());
        let env = missing.map(|(variable, value)| json!({ "name": variable, "value": value })).collect();
        append(&mut operations, raw, &pointer, "env", env);
    }
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let have = list(spec, "/volumes");
    let volumes = shape.volumes.iter().filter(|volume| named(have, name(volume)).is_none()).cloned().collect();
    append(&mut operations, spec, "/spec", "volumes", volumes);
    agent_first(&mut operations, spec, shape, agent);
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

fn agent_first(operations: &mut Vec<Value>, spec: &Value, shape: &Shape, agent: Arrived) {
    const FIRST: &str = "/spec/initContainers/0";
    match agent {
        Arrived::AsMade(0) => {}
        // Another mutator put its own before: what it starts is to have the identity as well.
        Arrived::AsMade(place) => {
            operations.push(json!({ "op": "move", "from": format!("/spec/initContainers/{place}"), "path": FIRST }));
        }
        Arrived::Outdated(place, now) => {
            operations.push(json!({ "op": "remove", "path": format!("/spec/initContainers/{place}") }));
            operations.push(add(FIRST.to_owned(), now));
        }
        Arrived::Absent if spec.get("initContainers").is_some_and(Value::is_array) => {
            operations.push(add(FIRST.to_owned(), shape.agent.clone()));
        }
        Arrived::Absent => operations.push(add("/spec/initContainers".to_owned(), json!([shape.agent]))),
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
