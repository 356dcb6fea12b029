//! Ephemeral containers, and others that share the agent's process namespace.

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    fixture::PodSpec,
    pods::{AGENT, lines},
    scenario::scenario_without_namespace,
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{made, open_namespace, said_against};

/// The entries of a process in `/proc` that other processes may be able to read.
const PARTS: [&str; 7] = ["root", "cwd", "exe", "environ", "maps", "mem", "fd"];

/// Adds an ephemeral container; returns the refusal, if any.
async fn debug(world: &World, pod: &str, dry_run: bool, container: Value) -> Result<Option<String>> {
    let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
    let params = PatchParams { dry_run, ..PatchParams::default() };
    said_against(world.pods().patch_ephemeral_containers(pod, &params, &patch).await)
}

#[tokio::test]
async fn a_container_for_debugging_gets_nothing_of_the_agents() {
    scenario_without_namespace("policy-debug", async |world| {
        open_namespace(world).await?;
        let mut pod = made(world, "debugged").await?;
        pod["spec"]["nodeSelector"] = json!({ "countersign.dev/no-such-node": "true" });
        let pod: Pod = serde_json::from_value(pod)?;
        world.pods().create(&PostParams::default(), &pod).await?;
        let name = pod.name_any();
        let mounted = async |mount: Value| {
            debug(world, &name, true, json!({ "name": "debug", "image": "debug", "volumeMounts": [mount] })).await
        };
        for volume in ["countersign-token", "countersign-private"] {
            let message = mounted(json!({ "name": volume, "mountPath": "/x" })).await?.unwrap_or_default();
            ensure!(message.contains("in countersign-agent alone"), "{volume}: {message}");
        }
        let message = mounted(json!({ "name": "countersign-identity", "mountPath": "/x" })).await?.unwrap_or_default();
        ensure!(message.contains("readOnly true"), "{message}");
        let mount = json!({ "name": "countersign-identity", "mountPath": "/run/countersign", "readOnly": true });
        assert_eq!(mounted(mount).await?, None);

        let target = |of: &str| json!({ "name": "debug", "image": "debug", "targetContainerName": of });
        let message = debug(world, &name, true, target(AGENT)).await?.context("the agent may be targeted")?;
        ensure!(message.contains("may not target countersign-agent"), "{message}");
        assert_eq!(debug(world, &name, true, target("app")).await?, None);
        // An existing one does not prevent another.
        assert_eq!(debug(world, &name, false, target("app")).await?, None);
        let another = json!({ "name": "another", "image": "debug", "targetContainerName": "app" });
        assert_eq!(debug(world, &name, true, another).await?, None);
        Ok(())
    })
    .await;
}

/// With one process namespace for the pod, every container sees the agent's process. Neither its own user nor root can read
/// it; a container with CAP_SYS_PTRACE can, but not the program file.
#[tokio::test]
async fn whoever_sees_the_agents_process_does_not_get_into_it_without_cap_sys_ptrace() {
    scenario_without_namespace("policy-proc", async |world| {
        open_namespace(world).await?;
        let spec = PodSpec {
            annotations: "countersign.dev/hold: 'false'",
            more: "shareProcessNamespace: true",
            ..PodSpec::hold("seen")
        };
        world.cluster.apply(&spec.pod(&world.namespace)).await?;
        world.ready("seen").await?;

        let output = world.demo("seen", &["look-into", "countersign-agent", "countersign-demo"]).await?;
        let own_user = lines(&String::from_utf8_lossy(&output));
        // The same check works in general: the application's process has the same user, and can be read.
        assert_eq!(reached(&own_user, "countersign-demo"), ["root", "cwd", "exe", "environ", "maps", "mem", "fd"]);
        closed(&own_user, "the same user")?;

        let contexts = [
            ("same-user", json!({ "runAsUser": 65532 })),
            ("root", json!({ "runAsUser": 0, "runAsNonRoot": false })),
            ("tracer", json!({ "runAsUser": 0, "runAsNonRoot": false, "capabilities": { "add": ["SYS_PTRACE"] } })),
        ];
        for (name, context) in &contexts {
            let container = json!({
                "name": name, "image": "countersign.local/demo:dev", "imagePullPolicy": "IfNotPresent",
                "args": ["look-into", "countersign-agent"], "securityContext": context,
            });
            assert_eq!(debug(world, "seen", false, container).await?, None, "{name}");
        }
        for name in ["same-user", "root"] {
            closed(&looked(world, name).await?, name)?;
        }
        let traced = looked(world, "tracer").await?;
        assert_eq!(reached(&traced, "countersign-agent"), PARTS, "known, and open: {traced:?}");
        let token = traced.iter().find(|line| line["part"] == "root").context("root was looked at")?;
        assert_eq!(token["program_mode"], "0111", "its image's program is readable");
        Ok(())
    })
    .await;
}

/// The output of an ephemeral container.
async fn looked(world: &World, container: &str) -> Result<Vec<Value>> {
    until(&format!("{container} has looked"), DEFAULT_TIMEOUT, async || {
        let said = lines(&world.logs("seen", container).await.unwrap_or_default());
        Ok(said.iter().any(|line| line["event"] == "looked").then_some(said))
    })
    .await
}

/// The entries of a program's processes that were readable, in the order in which they were tried.
fn reached<'a>(said: &'a [Value], program: &str) -> Vec<&'a str> {
    let of = |line: &&Value| line["event"] == "look-into" && line["program"] == program && line["reached"] == true;
    let mut parts: Vec<&str> = said.iter().filter(of).filter_map(|line| line["part"].as_str()).collect();
    parts.dedup();
    parts.sort_by_key(|part| PARTS.iter().position(|known| known == part));
    parts.dedup();
    parts
}

/// Checks that the agent's process was visible, and none of its entries readable.
fn closed(said: &[Value], who: &str) -> Result<()> {
    let tried = said.iter().filter(|line| line["event"] == "look-into" && line["program"] == "countersign-agent");
    ensure!(tried.count() >= PARTS.len(), "{who} did not see the agent's process: {said:?}");
    let reached = reached(said, "countersign-agent");
    ensure!(reached.is_empty(), "{who} reached {reached:?} of the agent: {said:?}");
    Ok(())
}
