//! Access to fields of a pod's raw JSON. Absent fields and fields of another type are `None` or empty, never a panic.

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
pub(super) fn named<'a>(items: &'a [Value], expected: &str) -> Option<&'a Value> {
    items.iter().find(|item| name(item) == expected)
}

/// Prefixes of the labels and annotations of a pod that are read.
const READ_PREFIXES: [&str; 7] = [
    "countersign.dev/",
    "kubernetes.io/config.",
    "sidecar.istio.io/",
    "traffic.sidecar.istio.io/",
    "istio.io/",
    "linkerd.io/",
    "config.linkerd.io/",
];

/// Whether a label or annotation of a pod is read.
pub(super) fn is_read(key: &str) -> bool {
    READ_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// The value of a pod's label, which must be one that is read.
pub(super) fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    debug_assert!(is_read(key), "{key} is skipped when a pod is read: add it to READ_PREFIXES");
    pod.pointer("/metadata/labels")?.get(key)?.as_str()
}

/// The value of a pod's annotation, which must be one that is read.
pub(super) fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    debug_assert!(is_read(key), "{key} is skipped when a pod is read: add it to READ_PREFIXES");
    pod.pointer("/metadata/annotations")?.get(key)?.as_str()
}
