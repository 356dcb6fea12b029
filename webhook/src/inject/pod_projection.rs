//! The fields of a pod that are read. A field that injection depends on must be listed here; all others are skipped.

use countersign_contract::pod::AGENT;
use serde_json::Value;

use super::{
    existing_injection::overlaps_identity,
    names::{APPLICATION_ENV, is_injected_volume},
    pod_fields::{is_read, name},
};
use crate::projection::{LONGEST_NAME, LONGEST_PATH, List, Part};

/// The most containers, and the most init containers, of a pod.
pub(crate) const MOST_CONTAINERS: usize = 256;
/// The most volumes of a pod.
const MOST_VOLUMES: usize = 1024;
/// The most mounts of a container.
const MOST_MOUNTS: usize = 1024;
/// The most environment variables of a container.
const MOST_ENV: usize = 4096;
/// The longest label or annotation read, in bytes: Kubernetes allows 256 KiB for all annotations of an object.
const LONGEST_ANNOTATION: usize = 256 * 1024;
/// The longest of all other strings, in bytes.
const LONGEST_TEXT: usize = 253;

/// The fields of a pod that are read.
pub(crate) static POD: Part = Part::Fields(&[
    ("apiVersion", Part::Scalar(LONGEST_TEXT)),
    ("kind", Part::Scalar(LONGEST_TEXT)),
    ("metadata", Part::Fields(&[("labels", METADATA), ("annotations", METADATA)])),
    (
        "spec",
        Part::Fields(&[
            ("initContainers", Part::List(INIT_CONTAINERS)),
            ("containers", Part::List(CONTAINERS)),
            ("volumes", Part::List(VOLUMES)),
            ("securityContext", USERS),
            ("resources", RESOURCES),
            ("nodeSelector", Part::Fields(&[("kubernetes.io/os", Part::Scalar(LONGEST_TEXT))])),
            ("os", Part::Fields(&[("name", Part::Scalar(LONGEST_TEXT))])),
            ("shareProcessNamespace", Part::Scalar(LONGEST_TEXT)),
            ("hostPID", Part::Scalar(LONGEST_TEXT)),
        ]),
    ),
]);

const METADATA: Part = Part::Entries(is_read, &Part::Scalar(LONGEST_ANNOTATION));
const USERS: Part = Part::Fields(&[("runAsUser", Part::Scalar(LONGEST_TEXT)), ("fsGroup", Part::Scalar(LONGEST_TEXT))]);
const RESOURCES: Part = Part::Fields(&[("requests", Part::Whole), ("limits", Part::Whole)]);

const INIT_CONTAINERS: List = List {
    field: "spec.initContainers",
    most: MOST_CONTAINERS,
    // A container with the agent's name is compared with the agent in every field.
    item: |head| Some(if name(head) == AGENT { &WHOLE } else { &CONTAINER }),
};
const CONTAINERS: List = List { field: "spec.containers", most: MOST_CONTAINERS, item: |_| Some(&CONTAINER) };
const VOLUMES: List =
    List { field: "spec.volumes", most: MOST_VOLUMES, item: |head| is_injected_volume(name(head)).then_some(&WHOLE) };

static WHOLE: Part = Part::Whole;

static CONTAINER: Part = Part::Fields(&[
    ("name", Part::Scalar(LONGEST_NAME)),
    ("securityContext", USERS),
    ("resources", RESOURCES),
    ("volumeMounts", Part::List(MOUNTS)),
    ("env", Part::List(ENV)),
]);

const MOUNTS: List = List {
    field: "volumeMounts of a container",
    most: MOST_MOUNTS,
    item: |head| (is_injected_volume(name(head)) || overlaps_identity(head)).then_some(&MOUNT),
};
const ENV: List =
    List { field: "env of a container", most: MOST_ENV, item: |head| is_injected_variable(head).then_some(&VARIABLE) };

static MOUNT: Part = Part::Fields(&[
    ("name", Part::Scalar(LONGEST_NAME)),
    ("mountPath", Part::Scalar(LONGEST_PATH)),
    ("readOnly", Part::Scalar(LONGEST_TEXT)),
    ("subPath", Part::Scalar(LONGEST_PATH)),
    ("subPathExpr", Part::Scalar(LONGEST_PATH)),
]);
static VARIABLE: Part = Part::Fields(&[("name", Part::Scalar(LONGEST_NAME))]);

fn is_injected_variable(variable: &Value) -> bool {
    APPLICATION_ENV.iter().any(|(ours, _)| *ours == name(variable))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::{MOST_CONTAINERS, MOST_ENV, MOST_MOUNTS, MOST_VOLUMES, POD};
    use crate::projection::{Unreadable, project};

    fn read(pod: &Value) -> Result<Value, Unreadable> {
        project(&to_raw_value(pod).expect("JSON"), &POD)
    }

    fn pod() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "labels": {}, "annotations": {} },
            "spec": { "initContainers": [], "containers": [{ "name": "app", "env": [], "volumeMounts": [] }], "volumes": [] },
        })
    }

    /// The projection of a pod does not depend on the amount of fields that injection does not need.
    #[test]
    fn what_injection_does_not_need_is_not_built() {
        let many = |item: Value, count: usize| Value::Array(vec![item; count]);
        let marks: Value = (0..10_000)
            .map(|index| (format!("other.example/{index}"), json!("x")))
            .collect::<serde_json::Map<_, _>>()
            .into();
        for (pointer, value) in [
            ("/spec/tolerations", many(json!({ "key": "a" }), 230_000)),
            ("/spec/volumes", many(json!({ "name": "data", "projected": { "sources": [{}] } }), MOST_VOLUMES)),
            ("/spec/containers/0/env", many(json!({ "name": "A", "value": "b" }), MOST_ENV)),
            ("/spec/containers/0/volumeMounts", many(json!({ "name": "data", "mountPath": "/data" }), MOST_MOUNTS)),
            ("/spec/containers/0/ports", many(json!({ "containerPort": 1 }), 10_000)),
            ("/metadata/labels", marks.clone()),
            ("/metadata/annotations", marks),
            ("/metadata/managedFields", many(json!({ "fieldsV1": { "f:a": {} } }), 10_000)),
            ("/status", json!({ "conditions": many(json!({ "type": "a" }), 10_000) })),
        ] {
            let mut large = pod();
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            large.pointer_mut(parent).expect("its parent")[key] = value;
            assert_eq!(read(&large), Ok(pod()), "{pointer}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_refused_by_its_name_count_and_limit() {
        let container = json!({ "name": "a" });
        for (pointer, field, most) in [
            ("/spec/containers", "spec.containers", MOST_CONTAINERS),
            ("/spec/initContainers", "spec.initContainers", MOST_CONTAINERS),
            ("/spec/volumes", "spec.volumes", MOST_VOLUMES),
            ("/spec/containers/0/volumeMounts", "volumeMounts of a container", MOST_MOUNTS),
            ("/spec/containers/0/env", "env of a container", MOST_ENV),
        ] {
            let mut long = pod();
            *long.pointer_mut(pointer).expect("the list") = Value::Array(vec![container.clone(); most]);
            assert!(read(&long).is_ok(), "{field}");
            *long.pointer_mut(pointer).expect("the list") = Value::Array(vec![container.clone(); most + 1]);
            assert_eq!(read(&long), Err(Unreadable::TooMany { field, count: most + 1, most }));
        }
    }

    /// A pod with the most fields that are read: memory is still bounded.
    #[test]
    fn a_pod_full_of_what_is_read_is_refused() {
        let mount = json!({ "name": "countersign-identity", "mountPath": "/run/countersign", "readOnly": true });
        let container = json!({ "name": "app", "volumeMounts": vec![mount; MOST_MOUNTS] });
        let mut full = pod();
        full["spec"]["containers"] = json!(vec![container; 40]);
        assert_eq!(read(&full), Err(Unreadable::TooMuch));
        let mut agent = pod();
        agent["spec"]["initContainers"] =
            json!([{ "name": "countersign-agent", "env": vec![json!({ "name": "A" }); 10_000] }]);
        assert_eq!(read(&agent), Err(Unreadable::TooMuch));
    }
}
