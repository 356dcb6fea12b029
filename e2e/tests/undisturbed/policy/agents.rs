//! The agent's program, its issuer and its sessions: a change to any of them is refused.

use serde_json::{Value, json};

use super::{
    Case, agent, all_refused, app, made, made_of, mounts, open_namespace, refusal, remove, token, variables, volume,
};
use countersign_e2e::scenario::scenario_without_namespace;

const CASES: [Case; 22] = [
    ("another image", |pod| agent(pod)["image"] = json!("evil.example/agent:dev"), "the image of the container"),
    (
        "an image whose name begins with ours",
        |pod| agent(pod)["image"] = json!("countersign.local/agent-of-mine:dev"),
        "the image of the container",
    ),
    (
        "ours from a registry that nobody named",
        |pod| agent(pod)["image"] = json!("evil.example/countersign.local/agent:dev"),
        "the image of the container",
    ),
    (
        "an image below ours",
        |pod| agent(pod)["image"] = json!("countersign.local/agent/mine:dev"),
        "the image of the container",
    ),
    (
        "a hook before it stops",
        |pod| agent(pod)["lifecycle"]["preStop"] = json!({ "exec": { "command": ["/countersign-agent", "wait"] } }),
        "no hook but postStart",
    ),
    (
        "another command after it starts",
        |pod| agent(pod)["lifecycle"] = json!({ "postStart": { "exec": { "command": ["/mine"] } } }),
        "no hook but postStart",
    ),
    (
        "an argument more after it starts",
        |pod| {
            let command = agent(pod)["lifecycle"]["postStart"]["exec"]["command"].as_array_mut().unwrap();
            command.extend([json!("--termination-log"), json!("/run/countersign/message")]);
        },
        "no hook but postStart",
    ),
    (
        "a request after it starts",
        |pod| agent(pod)["lifecycle"] = json!({ "postStart": { "httpGet": { "port": 80, "host": "192.0.2.1" } } }),
        "no hook but postStart",
    ),
    ("a startup probe", |pod| agent(pod)["startupProbe"] = probe(), "has no probes"),
    ("a readiness probe", |pod| agent(pod)["readinessProbe"] = probe(), "has no probes"),
    ("a liveness probe", |pod| agent(pod)["livenessProbe"] = probe(), "has no probes"),
    (
        "a device",
        |pod| {
            let claim = json!({ "name": "mine", "persistentVolumeClaim": { "claimName": "mine" } });
            pod["spec"]["volumes"].as_array_mut().unwrap().push(claim);
            agent(pod)["volumeDevices"] = json!([{ "name": "mine", "devicePath": "/countersign-agent" }]);
        },
        "no volumeDevices",
    ),
    (
        "its last message over the program",
        |pod| agent(pod)["terminationMessagePath"] = json!("/countersign-agent"),
        "terminationMessagePath",
    ),
    ("another issuer", |pod| set(pod, "COUNTERSIGN_ISSUER", "192.0.2.1:8443"), "not the issuer's address"),
    ("an issuer of another name", |pod| set(pod, "COUNTERSIGN_ISSUER_NAME", "evil.example"), "not the issuer's name"),
    (
        "another installation's audience",
        |pod| token(pod)["sources"][0]["serviceAccountToken"]["audience"] = json!("countersign.dev/another"),
        "not this installation's",
    ),
    ("roots made of another variable", |pod| set(pod, "COUNTERSIGN_ROOTS", "$(MINE)"), "without `$(…)`"),
    ("no sessions", |pod| variables(pod).retain(|one| one["name"] != "COUNTERSIGN_SESSIONS"), "COUNTERSIGN_SESSIONS"),
    ("another token", |pod| set(pod, "COUNTERSIGN_TOKEN_FILE", "/mine/token"), "COUNTERSIGN_TOKEN_FILE is"),
    ("another place for what is its own", |pod| set(pod, "COUNTERSIGN_PRIVATE", "/mine"), "COUNTERSIGN_PRIVATE is"),
    ("files that may be written", |pod| set(pod, "COUNTERSIGN_FILE_MODE", "0666"), "COUNTERSIGN_FILE_MODE is"),
    (
        "a token of ours in the application",
        |pod| {
            let mut mine = volume(pod, "countersign-token").clone();
            mine["name"] = json!("mine");
            pod["spec"]["volumes"].as_array_mut().unwrap().push(mine);
            mounts(app(pod)).push(json!({ "name": "mine", "mountPath": "/mine" }));
        },
        "no volume but countersign-token",
    ),
];

fn probe() -> Value {
    json!({ "exec": { "command": ["/countersign-agent", "wait"] } })
}

fn set(pod: &mut Value, name: &str, value: &str) {
    variables(pod).retain(|one| one["name"] != name);
    variables(pod).push(json!({ "name": name, "value": value }));
}

#[tokio::test]
async fn agents_that_run_or_ask_or_keep_something_else_are_refused() {
    scenario_without_namespace("policy-agent", async |world| {
        open_namespace(world).await?;
        all_refused(world, &made(world, "made").await?, &CASES).await
    })
    .await;
}

/// The identity of one container would be written where another mounts it.
#[tokio::test]
async fn sessions_reach_the_container_of_their_name_only() {
    scenario_without_namespace("policy-sessions", async |world| {
        open_namespace(world).await?;
        let made = made_of(world, "made", |pod| {
            pod["metadata"]["annotations"] = json!({ "countersign.dev/per-container": "true" });
            let mut side = app(pod).clone();
            side["name"] = json!("side");
            pod["spec"]["containers"].as_array_mut().unwrap().push(side);
        })
        .await?;
        assert_eq!(refusal(world, made.clone()).await?, None, "the shape as made");
        let named = "COUNTERSIGN_SESSIONS of the container countersign-agent holds";
        let cases: [Case; 5] = [
            ("swapped", |pod| set(pod, "COUNTERSIGN_SESSIONS", "app=/sessions/side,side=/sessions/app"), named),
            ("the pod's for one", |pod| set(pod, "COUNTERSIGN_SESSIONS", "=/sessions/app"), named),
            ("one's for the pod", |pod| set(pod, "COUNTERSIGN_SESSIONS", "app=/run/countersign"), named),
            ("of nobody", |pod| set(pod, "COUNTERSIGN_SESSIONS", "app=/sessions/app,nobody=/sessions/nobody"), named),
            (
                "volumes swapped",
                |pod| {
                    for mount in mounts(agent(pod)) {
                        match mount["name"].as_str().unwrap() {
                            "countersign-identity-app" => mount["mountPath"] = json!("/sessions/side"),
                            "countersign-identity-side" => mount["mountPath"] = json!("/sessions/app"),
                            _ => {}
                        }
                    }
                },
                "mounted whole and in its place",
            ),
        ];
        all_refused(world, &made, &cases).await
    })
    .await;
}

/// Additions by other mutators to every container, or requirements of an application.
#[tokio::test]
async fn an_agent_without_its_hook_and_other_tokens_pass() {
    scenario_without_namespace("policy-other", async |world| {
        open_namespace(world).await?;
        let made = made(world, "made").await?;
        let changes: [fn(&mut Value); 3] = [
            |pod| drop(remove(agent(pod), "lifecycle")),
            |pod| agent(pod)["image"] = json!(format!("countersign.local/agent:dev@sha256:{}", "0".repeat(64))),
            |pod| {
                let source = json!({ "serviceAccountToken": { "audience": "cloud.example", "path": "token" } });
                let cloud = json!({ "name": "cloud", "projected": { "sources": [source] } });
                pod["spec"]["volumes"].as_array_mut().unwrap().push(cloud);
                for container in [agent, app] {
                    let at = "/var/run/secrets/cloud.example/serviceaccount";
                    mounts(container(pod)).push(json!({ "name": "cloud", "mountPath": at }));
                }
            },
        ];
        for change in changes {
            let mut pod = made.clone();
            change(&mut pod);
            assert_eq!(refusal(world, pod).await?, None);
        }
        Ok(())
    })
    .await;
}
