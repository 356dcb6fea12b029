//! Mounts at the injected paths, however the path is written.

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{World, scenario::scenario_without_namespace};
use serde_json::{Value, json};

use super::{agent, app, made, mounts, open_namespace, refusal};

/// Paths that lead to the directory of the identity, or below.
const OURS: [&str; 13] = [
    "/run/countersign/",
    "/run//countersign",
    "//run/countersign",
    "/run/./countersign",
    "/./run/countersign/.",
    "run/countersign",
    "./run/countersign",
    "/var/run/countersign",
    "/var//run/./countersign",
    "var/run/countersign/credentials",
    "/run//countersign/credentials/tls.crt",
    "/run/./countersign/workload.sock",
    "/run/countersign/../countersign",
];

/// Paths that lead to a directory of the agent, above or below: a mount above can be renamed, and ours with it.
const AGENTS: [&str; 25] = [
    "/countersign-agent",
    "/./countersign-agent",
    "countersign-agent",
    "/",
    "//",
    "/.",
    "/private/",
    "//private/ready",
    "/sessions",
    "/sessions/app",
    "/run/countersign/credentials",
    "/run/countersign/../countersign",
    "/var/run/secrets/countersign.dev/token",
    "/run/secrets/countersign.dev",
    "/var/run//secrets/kubernetes.io/serviceaccount/",
    "/run",
    "/run/",
    "run",
    "//run/.",
    "/var",
    "/var/.",
    "/var/run",
    "/var/./run//secrets/.",
    "/run/secrets",
    "/var/run/secrets/",
];

const WITH_PARENTS: [&str; 3] = ["/run/other/../countersign", "/../run/countersign", "/mine/.."];

type Container = fn(&mut Value) -> &mut Value;

/// Mounts another volume there, or `part` of it if that is not empty.
async fn mounted(world: &World, made: &Value, of: Container, path: &str, part: &str) -> Result<Option<String>> {
    let mut pod = made.clone();
    pod["spec"]["volumes"].as_array_mut().context("volumes")?.push(json!({ "name": "mine", "emptyDir": {} }));
    mounts(of(&mut pod)).push(json!({ "name": "mine", "mountPath": path, "subPath": part }));
    refusal(world, pod).await
}

#[tokio::test]
async fn nothing_is_mounted_over_an_identity_however_the_path_is_written() {
    scenario_without_namespace("policy-paths", async |world| {
        open_namespace(world).await?;
        let made = made(world, "made").await?;
        for path in OURS {
            for part in ["", "part"] {
                let message =
                    mounted(world, &made, app, path, part).await?.with_context(|| format!("{path} passes"))?;
                ensure!(message.contains("at /run/countersign (or"), "{path}: {message}");
            }
            // Nor may the identity itself be mounted so: checks of paths elsewhere would not recognize it.
            let mut pod = made.clone();
            mounts(app(&mut pod)).iter_mut().filter(|mount| mount["name"] == "countersign-identity").for_each(
                |mount| {
                    mount["mountPath"] = json!(path);
                },
            );
            let message = refusal(world, pod).await?.with_context(|| format!("the identity at {path} passes"))?;
            ensure!(message.contains("at /run/countersign (or"), "{path}: {message}");
        }
        for path in WITH_PARENTS {
            for of in [app as Container, agent] {
                let message = mounted(world, &made, of, path, "").await?.with_context(|| format!("{path} passes"))?;
                ensure!(message.contains("segment `..`"), "{path}: {message}");
            }
        }
        let mut last_words = made.clone();
        app(&mut last_words)["terminationMessagePath"] = json!("/run/./countersign/credentials/tls.crt");
        let mut by_parent = made.clone();
        app(&mut by_parent)["terminationMessagePath"] = json!("/x/../run/countersign/credentials/tls.key");
        let mut device = made.clone();
        let claim = json!({ "name": "mine", "persistentVolumeClaim": { "claimName": "mine" } });
        device["spec"]["volumes"].as_array_mut().context("volumes")?.push(claim);
        app(&mut device)["volumeDevices"] = json!([{ "name": "mine", "devicePath": "/run/countersign/credentials" }]);
        for (what, pod) in [("a message", last_words), ("a message by `..`", by_parent), ("a device", device)] {
            let message = refusal(world, pod).await?.with_context(|| format!("{what} over a file of ours passes"))?;
            ensure!(message.contains("at /run/countersign (or"), "{what}: {message}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn nothing_is_mounted_over_what_is_the_agents_however_the_path_is_written() {
    scenario_without_namespace("policy-agents-paths", async |world| {
        open_namespace(world).await?;
        let made = made(world, "made").await?;
        for path in AGENTS {
            for part in ["", "part"] {
                let message =
                    mounted(world, &made, agent, path, part).await?.with_context(|| format!("{path} passes"))?;
                ensure!(message.contains("in its place, and no other volume"), "{path}: {message}");
            }
        }
        for (name, path, part) in [
            ("countersign-private", "/elsewhere", ""),
            ("countersign-token", "/elsewhere", ""),
            ("countersign-identity", "/sessions/app", ""),
            ("countersign-private", "/mine", "part"),
        ] {
            let mut pod = made.clone();
            mounts(agent(&mut pod)).push(json!({ "name": name, "mountPath": path, "subPath": part }));
            let message = refusal(world, pod).await?.with_context(|| format!("{name} at {path} passes"))?;
            ensure!(message.contains("mounted whole and in its place"), "{name} at {path}: {message}");
        }
        Ok(())
    })
    .await;
}

/// The runtime mounts by depth; `/var/run`, a link to `/run` in most images, has the same depth as `/run/countersign`.
#[tokio::test]
async fn what_is_mounted_at_var_run_comes_before_the_identity() {
    scenario_without_namespace("policy-var-run", async |world| {
        open_namespace(world).await?;
        let made = made(world, "made").await?;
        for path in ["/var/run", "/var//run/", "var/./run/."] {
            let message = mounted(world, &made, app, path, "").await?.with_context(|| format!("{path} passes"))?;
            ensure!(message.contains("at /var/run after the identity"), "{path}: {message}");
            let mut before = made.clone();
            before["spec"]["volumes"]
                .as_array_mut()
                .context("volumes")?
                .push(json!({ "name": "mine", "emptyDir": {} }));
            mounts(app(&mut before)).insert(0, json!({ "name": "mine", "mountPath": path }));
            assert_eq!(refusal(world, before).await?, None, "{path}, before");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn paths_that_only_look_like_ours_pass() {
    scenario_without_namespace("policy-near", async |world| {
        open_namespace(world).await?;
        let made = made(world, "made").await?;
        for path in
            ["/run", "/run/countersigned", "/data/run/countersign", "/run/var/run/countersign", "/run/.countersign"]
        {
            assert_eq!(mounted(world, &made, app, path, "").await?, None, "{path}");
        }
        for path in
            ["/countersign-agents", "/run/secrets/cloud.example", "/data/private", "/run/other", "/runner", "/var/lib"]
        {
            assert_eq!(mounted(world, &made, agent, path, "").await?, None, "{path}");
        }
        Ok(())
    })
    .await;
}

/// Without the label, volumes and agent: only the path can be checked.
#[tokio::test]
async fn a_pod_that_pretends_by_another_spelling_of_the_path_is_refused() {
    scenario_without_namespace("policy-spelling", async |world| {
        open_namespace(world).await?;
        let made = made(world, "made").await?;
        for path in OURS.into_iter().chain(["/run/other/../countersign"]) {
            let mut pod = json!({
                "metadata": { "name": "lie", "labels": { "countersign.dev/inject": "false" } },
                "spec": { "containers": [{ "name": "app", "image": "app", "volumeMounts": [{ "name": "mine", "mountPath": path }] }],
                    "volumes": [{ "name": "mine", "emptyDir": {} }] },
            });
            pod["spec"]["serviceAccountName"] = made["spec"]["serviceAccountName"].clone();
            let message = refusal(world, pod).await?.with_context(|| format!("{path} passes"))?;
            ensure!(message.contains("needs the container countersign-agent"), "{path}: {message}");
        }
        Ok(())
    })
    .await;
}

/// The API server limits the cost of each expression and of a policy: a large pod must not exceed it.
#[tokio::test]
async fn a_pod_of_fifty_containers_with_forty_mounts_each_is_within_the_policies_budget() {
    scenario_without_namespace("policy-large", async |world| {
        open_namespace(world).await?;
        let mut pod = made(world, "made").await?;
        for number in 0..40 {
            let volume = json!({ "name": format!("volume-{number}"), "emptyDir": {} });
            pod["spec"]["volumes"].as_array_mut().context("volumes")?.push(volume);
            let path = format!("/var/lib/an/application/with/countersign/and/more/{number}");
            mounts(app(&mut pod)).insert(0, json!({ "name": format!("volume-{number}"), "mountPath": path }));
        }
        for number in 1..50 {
            let mut another = app(&mut pod).clone();
            another["name"] = json!(format!("another-{number}"));
            pod["spec"]["containers"].as_array_mut().context("containers")?.push(another);
        }
        assert_eq!(refusal(world, pod).await?, None);
        Ok(())
    })
    .await;
}
