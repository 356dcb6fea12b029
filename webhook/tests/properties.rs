//! Whatever the pod: a patch applies, what it makes needs no patch, and it takes nothing away.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{apply, outcome, patch, with_defaults};
use countersign_webhook::inject::Outcome;
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

proptest! {
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
