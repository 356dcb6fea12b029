//! Reading raw JSON of pods: what is absent or of another type is `None` or empty, never a panic.

use serde_json::Value;

/// The items of the list at a JSON pointer.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text at a JSON pointer.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// The text of a field.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// The `name` of a list's item, or "".
pub(super) fn name(value: &Value) -> &str {
    field(value, "name").unwrap_or_default()
}

/// The item of that name.
pub(super) fn named<'a>(items: &'a [Value], wanted: &str) -> Option<&'a Value> {
    items.iter().find(|item| name(item) == wanted)
}

/// The beginnings of the labels and annotations that are read of a pod.
const READ: [&str; 7] = [
    "countersign.dev/",
    "kubernetes.io/config.",
    "sidecar.istio.io/",
    "traffic.sidecar.istio.io/",
    "istio.io/",
    "linkerd.io/",
    "config.linkerd.io/",
];

/// Whether a label or annotation is read of a pod.
pub(super) fn is_read(key: &str) -> bool {
    READ.iter().any(|read| key.starts_with(read))
}

/// The pod's value of a label that is read.
pub(super) fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    debug_assert!(is_read(key), "{key} is skipped when a pod is read: add it to READ");
    pod.pointer("/metadata/labels")?.get(key)?.as_str()
}

/// The pod's value of an annotation that is read.
pub(super) fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    debug_assert!(is_read(key), "{key} is skipped when a pod is read: add it to READ");
    pod.pointer("/metadata/annotations")?.get(key)?.as_str()
}
