//! Properties of patches for arbitrary pods: a patch applies, a patched pod needs no further patch, and a patch removes
//! nothing.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{answer, apply, outcome, patch, with_defaults};
use countersign_webhook::{admission::Answer, inject::Outcome};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

fn container(name: String) -> impl Strategy<Value = Value> {
    let uid = prop_oneof![Just(None), Just(Some(0)), Just(Some(7)), Just(Some(8))];
    (uid, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(move |(uid, env, mounts, native)| {
        let mut container = json!({ "name": name, "image": "i" });
        if let Some(uid) = uid {
            container["securityContext"] = json!({ "runAsUser": uid });
        }
        if env {
            container["env"] = json!([{ "name": "SPIFFE_ENDPOINT_SOCKET", "value": "x" }]);
        }
        if mounts {
            container["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
        }
        if native {
            container["restartPolicy"] = json!("Always");
        }
        container
    })
}

fn containers(prefix: &'static str, least: usize) -> impl Strategy<Value = Vec<Value>> {
    (least..4)
        .prop_flat_map(move |count| (0..count).map(|index| container(format!("{prefix}{index}"))).collect::<Vec<_>>())
}

fn pods() -> impl Strategy<Value = Value> {
    let annotations = prop::collection::btree_map(
        prop_oneof![Just("countersign.dev/per-container"), Just("countersign.dev/hold"), Just("other.example/x~y")],
        prop_oneof![Just("true"), Just("false")],
        0..3,
    );
    let context = prop_oneof![Just(json!(null)), Just(json!({ "fsGroup": 3 })), Just(json!({ "runAsUser": 7 }))];
    (containers("init", 0), containers("app", 1), annotations, context, any::<bool>()).prop_map(
        |(init, app, annotations, context, volumes)| {
            let mut pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": app } });
            if !init.is_empty() {
                pod["spec"]["initContainers"] = json!(init);
            }
            if !annotations.is_empty() {
                pod["metadata"]["annotations"] = json!(annotations);
            }
            if !context.is_null() {
                pod["spec"]["securityContext"] = context;
            }
            if volumes {
                pod["spec"]["volumes"] = json!([{ "name": "data", "emptyDir": {} }]);
            }
            pod
        },
    )
}

/// Whether everything of `before` is in `after`; lists may have grown anywhere.
fn grew(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            before.iter().all(|(key, value)| after.get(key).is_some_and(|after| grew(value, after)))
        }
        (Value::Array(before), Value::Array(after)) => {
            let mut after = after.iter();
            before.iter().all(|item| after.any(|found| grew(item, found)))
        }
        _ => before == after,
    }
}

/// JSON pointers of all values in a value.
fn pointers(value: &Value) -> Vec<String> {
    let below =
        |key: &str, value: &Value| pointers(value).into_iter().map(|rest| format!("/{key}{rest}")).collect::<Vec<_>>();
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    let mut all: Vec<String> = match value {
        Value::Object(fields) => fields.iter().flat_map(|(key, value)| below(&escaped(key), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, item)| below(&index.to_string(), item)).collect()
        }
        _ => vec![],
    };
    all.push(String::new());
    all
}

const NAMES: &[&str] =
    &["countersign-agent", "countersign-identity", "countersign-token", "SPIFFE_ENDPOINT_SOCKET", "app0", "", "true"];
const PATHS: &[&str] = &["/run/countersign", "/run/countersign/a", "/data"];
const KEYS: &[&str] = &[
    "name",
    "mountPath",
    "readOnly",
    "subPath",
    "limits",
    "requests",
    "cpu",
    "memory",
    "env",
    "kubernetes.io/os",
    "x",
];

/// Any JSON, biased towards names that matter to injection.
fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1..8_i64).prop_map(Value::from),
        prop::sample::select(NAMES).prop_map(Value::from),
        prop::sample::select(PATHS).prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(KEYS), inner, 0..4).prop_map(|fields| json!(fields)),
        ]
    })
}

/// Pods as created, as re-invoked, and with arbitrary changes, valid and invalid.
fn arriving() -> impl Strategy<Value = Value> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<Option<bool>>(), values()), 0..4);
    (pods(), any::<bool>(), changes).prop_map(|(mut pod, again, changes)| {
        if again {
            pod = with_defaults(apply(&pod, &patch(&pod)));
        }
        for (place, new, value) in changes {
            let pointers = pointers(&pod);
            let place = pod.pointer_mut(place.get::<String>(&pointers)).unwrap();
            match (new, place) {
                (Some(_), Value::Object(fields)) => drop(fields.insert("invented".to_owned(), value)),
                (Some(true), Value::Array(items)) => items.push(value),
                (Some(false), Value::Array(items)) => items.insert(0, value),
                (_, place) => *place = value,
            }
        }
        pod
    })
}

proptest! {
    // The webhook reads only a part of each pod: that part must determine the answer.
    #[test]
    fn the_part_that_is_read_decides_as_the_whole_pod_would(pod in arriving()) {
        let is_pod = ["metadata", "spec"].iter().all(|key| pod.get(key).is_some_and(Value::is_object))
            && pod.get("kind").is_none_or(|kind| kind == "Pod" || !kind.is_string())
            && pod.get("apiVersion").is_none_or(|version| version == "v1" || !version.is_string());
        match (answer(&pod), outcome(&pod)) {
            (answer, _) if !is_pod => prop_assert_eq!(answer.outcome(), ("denied", "NotAPod")),
            (Answer::Allow { operations, warnings, .. }, Ok(Outcome::Inject { operations: all, warnings: warned })) => {
                prop_assert_eq!((operations, warnings), (all, warned));
            }
            (answer, Ok(Outcome::Skip(skip))) => prop_assert_eq!(answer.outcome(), ("skipped", skip.reason().name())),
            (Answer::Deny { messages, .. }, Err(refusal)) => prop_assert_eq!(messages, [refusal.to_string()]),
            (answer, outcome) => panic!("{answer:?} but {outcome:?}"),
        }
    }

    // Also with all fields that the API server writes for its own types.
    #[test]
    fn a_pod_as_the_kubernetes_types_write_it_is_answered_alike(pod in pods()) {
        let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
        prop_assert_eq!(answer(&serde_json::to_value(&typed).unwrap()), answer(&pod));
        let patched: Pod = serde_json::from_value(apply(&pod, &patch(&pod))).unwrap();
        let Answer::Allow { operations, .. } = answer(&serde_json::to_value(&patched).unwrap()) else { panic!("{patched:?}") };
        prop_assert_eq!(operations, Vec::<Value>::new());
    }

    #[test]
    fn a_patched_pod_needs_no_patch(pod in pods()) {
        let patched = apply(&pod, &patch(&pod));
        prop_assert_eq!(patch(&patched), Vec::<Value>::new());
        prop_assert_eq!(patch(&with_defaults(patched)), Vec::<Value>::new());
    }

    #[test]
    fn a_patch_takes_nothing_away(pod in pods()) {
        let patched = apply(&pod, &patch(&pod));
        assert!(grew(&pod, &patched), "{pod:#}\n{patched:#}");
    }

    #[test]
    fn containers_that_come_between_two_calls_get_what_is_missing(pod in pods(), late in containers("late", 1), first in any::<bool>()) {
        let mut pod = apply(&pod, &patch(&pod));
        let list = if first { "initContainers" } else { "containers" };
        for container in late {
            pod["spec"][list].as_array_mut().unwrap().insert(0, container);
        }
        let again = apply(&pod, &patch(&pod));
        prop_assert_eq!(patch(&again), Vec::<Value>::new());
        prop_assert_eq!(&again["spec"]["initContainers"][0]["name"], "countersign-agent");
    }

    #[test]
    fn no_json_makes_it_panic(text in "[\\[\\]{}\",:a-z0-9]{0,64}", part in 0..6_usize) {
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let mut pod = json!({ "metadata": {}, "spec": { "containers": [{ "name": "app" }] } });
        let pointer = ["/metadata", "/spec", "/spec/containers", "/spec/containers/0", "/spec/containers/0/name", "/metadata"][part];
        *pod.pointer_mut(pointer).unwrap() = value;
        if let Ok(Outcome::Inject { operations, .. }) = outcome(&pod) {
            assert!(!operations.is_empty());
        }
    }
}
