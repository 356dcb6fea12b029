//! Pods that already contain parts of an injection: our own, possibly changed by others since, or written by hand.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{apply, container, injected, outcome, patch, pod, with_defaults};
use countersign_webhook::inject::Refusal;
use serde_json::{Value, json};

fn refusal(pod: &Value) -> Refusal {
    outcome(pod).unwrap_err()
}

fn uid_pod() -> Value {
    let mut pod = pod();
    pod["spec"]["containers"][0]["securityContext"] = json!({ "runAsUser": 1000 });
    pod
}

#[test]
fn what_was_injected_is_left_alone_even_after_others_added_to_it() {
    let pod = injected(&pod());
    assert_eq!(patch(&pod), Vec::<Value>::new());
    assert_eq!(patch(&with_defaults(pod)), Vec::<Value>::new());
}

#[test]
fn a_container_added_since_gets_only_its_mount() {
    let mut pod = injected(&pod());
    pod["spec"]["containers"].as_array_mut().unwrap().push(container("proxy"));
    let operations = patch(&pod);
    let paths: Vec<_> = operations.iter().map(|operation| operation["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/spec/containers/1/volumeMounts/-", "/spec/containers/1/env"]);
    assert_eq!(patch(&apply(&pod, &operations)), Vec::<Value>::new());
}

#[test]
fn a_container_added_since_gets_its_own_session() {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({ "countersign.dev/per-container": "true" });
    let mut pod = injected(&pod);
    pod["spec"]["initContainers"][0]["image"] = json!("mirror.corp/countersign.local/agent:dev");
    pod["spec"]["containers"].as_array_mut().unwrap().push(container("proxy"));
    let now = injected(&pod);
    let agent = &now["spec"]["initContainers"][0];
    assert_eq!(agent["image"], "mirror.corp/countersign.local/agent:dev");
    assert!(
        agent["env"]
            .as_array()
            .unwrap()
            .contains(&json!({ "name": "COUNTERSIGN_SESSIONS", "value": "app=/sessions/app,proxy=/sessions/proxy" }))
    );
    assert_eq!(now["spec"]["containers"][1]["volumeMounts"][1]["name"], "countersign-identity-proxy");
    assert_eq!(patch(&now), Vec::<Value>::new());
}

#[test]
fn a_container_of_another_user_added_since_widens_the_mode() {
    let mut pod = injected(&uid_pod());
    assert_eq!(pod["spec"]["initContainers"][0]["securityContext"]["runAsUser"], 1000);
    pod["spec"]["containers"].as_array_mut().unwrap().push(container("proxy"));
    let now = injected(&pod);
    assert_eq!(now["spec"]["initContainers"][0]["securityContext"]["runAsUser"], 65532);
    assert_eq!(patch(&now), Vec::<Value>::new());
}

#[test]
fn the_agent_is_first_again_after_another_went_before_it() {
    let mut pod = injected(&pod());
    pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, container("theirs"));
    let now = injected(&pod);
    assert_eq!(now["spec"]["initContainers"][0]["name"], "countersign-agent");
    assert_eq!(now["spec"]["initContainers"][1]["name"], "theirs");
    assert_eq!(patch(&now), Vec::<Value>::new());
}

#[test]
fn an_agent_that_is_not_as_made_is_refused() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 14] = [
        ("image", |agent| agent["image"] = json!("evil/agent:dev2")),
        ("image", |agent| agent["image"] = json!("evilcountersign.local/agent")),
        ("args", |agent| agent["args"] = json!(["run", "--more"])),
        ("command", |agent| agent["command"] = json!(["/bin/sh"])),
        ("env", |agent| agent["env"][0]["value"] = json!("10.0.0.66:8443")),
        ("env", |agent| {
            agent["env"].as_array_mut().unwrap().push(json!({ "name": "COUNTERSIGN_ISSUER", "value": "x" }));
        }),
        ("envFrom", |agent| agent["envFrom"] = json!([])),
        ("restartPolicy", |agent| drop(agent.as_object_mut().unwrap().remove("restartPolicy"))),
        ("lifecycle", |agent| drop(agent.as_object_mut().unwrap().remove("lifecycle"))),
        ("securityContext", |agent| agent["securityContext"]["runAsUser"] = json!(0)),
        ("securityContext", |agent| agent["securityContext"]["privileged"] = json!(true)),
        ("securityContext", |agent| agent["securityContext"]["capabilities"]["drop"] = json!([])),
        ("resources", |agent| agent["resources"]["claims"] = json!([{ "name": "device" }])),
        ("volumeMounts", |agent| drop(agent["volumeMounts"].as_array_mut().unwrap().remove(0))),
    ];
    for (field, change) in changes {
        let mut pod = injected(&pod());
        change(&mut pod["spec"]["initContainers"][0]);
        match refusal(&pod) {
            Refusal::NameTaken { what, difference } => {
                assert_eq!((what.as_str(), difference), ("container `countersign-agent`", format!("field `{field}`")));
            }
            other => panic!("{field}: {other:?}"),
        }
    }
}

// Vertical autoscalers and LimitRanges do.
#[test]
fn what_others_let_the_agent_ask_of_its_node_is_left_to_them() {
    let mut asks_for_more = injected(&pod());
    asks_for_more["spec"]["initContainers"][0]["resources"] = json!({ "requests": { "cpu": "1" } });
    let mut limited_later = injected(&pod());
    limited_later["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
    let mut of_nothing = injected(&pod());
    of_nothing["spec"]["initContainers"][0].as_object_mut().unwrap().remove("resources");
    let mut bounded_as_a_whole = injected(&pod());
    bounded_as_a_whole["spec"]["resources"] = json!({ "limits": { "cpu": "1" } });
    for pod in [asks_for_more, limited_later, of_nothing, bounded_as_a_whole] {
        assert_eq!(patch(&pod), Vec::<Value>::new(), "{pod:#}");
    }
}

#[test]
fn our_names_in_other_places_are_refused() {
    let mut as_container = pod();
    as_container["spec"]["containers"].as_array_mut().unwrap().push(container("countersign-agent"));
    let mut volume = pod();
    volume["spec"]["volumes"] = json!([{ "name": "countersign-identity", "emptyDir": {} }]);
    let mut another_audience = injected(&pod());
    another_audience["spec"]["volumes"][1]["projected"]["sources"][0]["serviceAccountToken"]["audience"] =
        json!("another");
    let mut not_needed = pod();
    not_needed["spec"]["volumes"] = json!([{ "name": "countersign-identity-app", "emptyDir": {} }]);
    let mut token_in_application = injected(&pod());
    token_in_application["spec"]["containers"][0]["volumeMounts"][0] =
        json!({ "name": "countersign-token", "mountPath": "/token" });
    let mut writable = injected(&pod());
    writable["spec"]["containers"][0]["volumeMounts"][1]["readOnly"] = json!(false);
    for pod in [as_container, volume, another_audience, not_needed, token_in_application, writable] {
        assert_eq!(refusal(&pod).reason().name(), "NameTaken", "{pod:#}");
    }
}

#[test]
fn a_part_of_the_identity_is_mounted_only_elsewhere_only_to_be_read_and_only_by_its_container() {
    type Change = fn(&mut Value);
    let changes: [Change; 5] = [
        |mount| mount["mountPath"] = json!("/run/countersign"),
        |mount| mount["mountPath"] = json!("/run/countersign/credentials"),
        |mount| mount["readOnly"] = json!(false),
        |mount| mount["name"] = json!("countersign-private"),
        |mount| mount["subPath"] = json!(""),
    ];
    let part = || json!({ "name": "countersign-identity", "mountPath": "/etc/tls", "subPath": "credentials", "readOnly": true });
    let with = |mount: Value| {
        let mut pod = pod();
        pod["spec"]["containers"][0]["volumeMounts"] = json!([mount]);
        pod
    };
    assert!(outcome(&with(part())).is_ok());
    for change in changes {
        let mut mount = part();
        change(&mut mount);
        assert_eq!(refusal(&with(mount.clone())).reason().name(), "NameTaken", "{mount}");
    }
    let mut left_out = with(part());
    left_out["metadata"]["annotations"] = json!({ "countersign.dev/containers": "side" });
    left_out["spec"]["containers"].as_array_mut().unwrap().push(container("side"));
    assert_eq!(refusal(&left_out).reason().name(), "NameTaken");
}

#[test]
fn a_container_left_out_cannot_mount_the_identity() {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({ "countersign.dev/containers": "app" });
    let mut side = container("side");
    side["volumeMounts"] =
        json!([{ "name": "countersign-identity", "mountPath": "/run/countersign", "readOnly": true }]);
    pod["spec"]["containers"].as_array_mut().unwrap().push(side);
    assert_eq!(refusal(&pod).reason().name(), "NameTaken");
}

#[test]
fn something_else_mounted_at_our_place_is_refused() {
    for path in [
        "/run/countersign",
        "/run/countersign/",
        "/run/countersign/credentials",
        "run/countersign",
        "/run//countersign",
        "//run/./countersign/.",
        "/run/other/../countersign",
        "/../run/countersign",
        "/var/run/countersign",
        "/var/./run//countersign/credentials",
        "/var/run/../run/countersign",
    ] {
        let mut pod = pod();
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "mine", "mountPath": path }]);
        assert_eq!(refusal(&pod).reason().name(), "MountTaken", "{path}");
    }
    for path in [
        "/run",
        "/run/countersigned",
        "/var/run",
        "/data/run/countersign",
        "/run/countersign/..",
        "/run/var/run/countersign",
    ] {
        let mut pod = pod();
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "mine", "mountPath": path }]);
        assert!(outcome(&pod).is_ok(), "{path}");
    }
}
