//! The API server's policy for pods after all mutating webhooks: each rule is violated once and the pod refused with the
//! rule's message, and pods as injected pass.

#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a value that is missing fails the test"
)]

use anyhow::{Context as _, Result, ensure};
use countersign_contract::metadata::label;
use countersign_e2e::{
    World,
    apply::documents,
    fixture::PodSpec,
    pods::{AGENT, APP},
    scenario::scenario_without_namespace,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

mod agents;
mod debugging;
mod paths;
mod updates;

/// A change by a later mutator or in a handmade pod, and text that the refusal must contain.
type Case = (&'static str, fn(&mut Value), &'static str);

const CASES: [Case; 31] = [
    ("no agent", |pod| pod["spec"]["initContainers"] = json!([]), "needs the container countersign-agent"),
    (
        "the agent beside the application",
        |pod| {
            let mut agent = agent(pod).clone();
            remove(&mut agent, "restartPolicy");
            pod["spec"]["containers"].as_array_mut().unwrap().push(agent);
            pod["spec"]["initContainers"] = json!([]);
        },
        "needs the container countersign-agent",
    ),
    (
        "an agent that ends",
        |pod| {
            remove(agent(pod), "restartPolicy");
            remove(agent(pod), "lifecycle");
        },
        "must have restartPolicy Always",
    ),
    (
        "a container before the agent",
        |pod| {
            let mount = json!({ "name": "countersign-identity", "mountPath": "/run/countersign", "readOnly": true });
            let early = json!({ "name": "early", "image": "early", "volumeMounts": [mount] });
            pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, early);
        },
        "stands before countersign-agent",
    ),
    ("another command", |pod| agent(pod)["command"] = json!(["/sh"]), "remove its command"),
    ("other arguments", |pod| agent(pod)["args"] = json!(["run", "--more"]), "remove its command"),
    ("no roots", |pod| variables(pod).retain(|one| one["name"] != "COUNTERSIGN_ROOTS"), "COUNTERSIGN_ROOTS"),
    (
        "two issuers",
        |pod| {
            let issuer = variables(pod).iter().find(|one| one["name"] == "COUNTERSIGN_ISSUER").unwrap().clone();
            variables(pod).push(issuer);
        },
        "each once",
    ),
    (
        "roots from a tenant's ConfigMap",
        |pod| {
            variables(pod).retain(|one| one["name"] != "COUNTERSIGN_ROOTS");
            let from = json!({ "configMapKeyRef": { "name": "mine", "key": "roots" } });
            variables(pod).push(json!({ "name": "COUNTERSIGN_ROOTS", "valueFrom": from }));
        },
        "as a value of its own",
    ),
    ("more environment", |pod| agent(pod)["envFrom"] = json!([{ "configMapRef": { "name": "mine" } }]), "no envFrom"),
    ("no security context", |pod| drop(remove(agent(pod), "securityContext")), "a user that is not root"),
    ("root", |pod| guard(pod)["runAsUser"] = json!(0), "a user that is not root"),
    ("perhaps root", |pod| guard(pod)["runAsNonRoot"] = json!(false), "a user that is not root"),
    ("escalation", |pod| guard(pod)["allowPrivilegeEscalation"] = json!(true), "a user that is not root"),
    ("a writable root", |pod| guard(pod)["readOnlyRootFilesystem"] = json!(false), "a user that is not root"),
    ("capabilities kept", |pod| guard(pod)["capabilities"]["drop"] = json!([]), "must drop ALL capabilities"),
    ("a capability", |pod| guard(pod)["capabilities"]["add"] = json!(["SYS_PTRACE"]), "must drop ALL capabilities"),
    ("no seccomp", |pod| guard(pod)["seccompProfile"] = json!({ "type": "Unconfined" }), "seccomp"),
    (
        "another audience",
        |pod| token(pod)["sources"][0]["serviceAccountToken"]["audience"] = json!("https://kubernetes.default.svc"),
        // Two policies refuse it, and the API server reports the reason of one.
        "volume countersign-token",
    ),
    (
        "more in the token's volume",
        |pod| token(pod)["sources"].as_array_mut().unwrap().push(json!({ "secret": { "name": "mine" } })),
        "volume countersign-token",
    ),
    (
        "no token",
        |pod| mounts(agent(pod)).retain(|one| one["name"] != "countersign-token"),
        "must mount countersign-token",
    ),
    (
        "the API's token",
        |pod| {
            let path = "/var/run/secrets/kubernetes.io/serviceaccount";
            mounts(agent(pod)).retain(|one| one["mountPath"] != path);
            mounts(agent(pod)).push(json!({ "name": "countersign-private", "mountPath": path }));
        },
        "must not hold a token of the Kubernetes API",
    ),
    ("keys on a disk", |pod| volume(pod, "countersign-private")["emptyDir"] = json!({}), "medium Memory"),
    ("an identity on a disk", |pod| volume(pod, "countersign-identity")["emptyDir"] = json!({}), "medium Memory"),
    (
        "the token in the application",
        |pod| mounts(app(pod)).push(json!({ "name": "countersign-token", "mountPath": "/token" })),
        "in countersign-agent alone",
    ),
    (
        "the agent's own volume in the application",
        |pod| mounts(app(pod)).push(json!({ "name": "countersign-private", "mountPath": "/private" })),
        "in countersign-agent alone",
    ),
    (
        "another container's identity",
        |pod| {
            let other = json!({ "name": "countersign-identity-other", "emptyDir": { "medium": "Memory" } });
            pod["spec"]["volumes"].as_array_mut().unwrap().push(other);
            identity(pod)["name"] = json!("countersign-identity-other");
        },
        "in the container of that name",
    ),
    ("a writable identity", |pod| drop(remove(identity(pod), "readOnly")), "readOnly true"),
    (
        "the identity elsewhere",
        |pod| {
            mounts(app(pod)).push(json!({ "name": "countersign-identity", "mountPath": "/other", "readOnly": true }));
        },
        "nowhere else but in part",
    ),
    ("a part in its place", |pod| identity(pod)["subPath"] = json!("credentials"), "the whole volume"),
    (
        "something over it",
        |pod| {
            pod["spec"]["volumes"].as_array_mut().unwrap().push(json!({ "name": "mine", "emptyDir": {} }));
            mounts(app(pod)).push(json!({ "name": "mine", "mountPath": "/run/countersign/credentials" }));
        },
        "nothing else",
    ),
];

fn container<'a>(pod: &'a mut Value, list: &str, name: &str) -> &'a mut Value {
    pod["spec"][list].as_array_mut().unwrap().iter_mut().find(|one| one["name"] == name).unwrap()
}

fn agent(pod: &mut Value) -> &mut Value {
    container(pod, "initContainers", AGENT)
}

fn app(pod: &mut Value) -> &mut Value {
    container(pod, "containers", APP)
}

fn guard(pod: &mut Value) -> &mut Value {
    &mut agent(pod)["securityContext"]
}

fn variables(pod: &mut Value) -> &mut Vec<Value> {
    agent(pod)["env"].as_array_mut().unwrap()
}

fn mounts(container: &mut Value) -> &mut Vec<Value> {
    container["volumeMounts"].as_array_mut().unwrap()
}

fn identity(pod: &mut Value) -> &mut Value {
    mounts(app(pod)).iter_mut().find(|one| one["name"] == "countersign-identity").unwrap()
}

fn volume<'a>(pod: &'a mut Value, name: &str) -> &'a mut Value {
    pod["spec"]["volumes"].as_array_mut().unwrap().iter_mut().find(|one| one["name"] == name).unwrap()
}

fn token(pod: &mut Value) -> &mut Value {
    &mut volume(pod, "countersign-token")["projected"]
}

fn remove(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut().unwrap().remove(key)
}

/// A namespace with injection and without pod security restrictions, so that only our policy decides.
async fn open_namespace(world: &World) -> Result<()> {
    let yaml = world.namespace_yaml().replace("pod-security.kubernetes.io/enforce: restricted", "test: open");
    world.cluster.apply(&yaml).await.map(drop)
}

/// A pod as injected, which the webhook will skip from now on; its service account exists.
async fn made(world: &World, name: &str) -> Result<Value> {
    made_of(world, name, |_| {}).await
}

/// As [`made`], for a pod that is changed before injection.
async fn made_of(world: &World, name: &str, change: impl FnOnce(&mut Value)) -> Result<Value> {
    let mut objects = documents(&PodSpec::hold(name).pod(&world.namespace))?;
    let pod: Pod = objects.pop().context("a pod is the last")?.try_parse()?;
    for object in &objects {
        world.cluster.apply_object(object).await?;
    }
    let mut pod = serde_json::to_value(pod)?;
    change(&mut pod);
    let pod: Pod = serde_json::from_value(pod)?;
    let mut made = world.pods().create(&dry(), &pod).await.context("have the webhook make a pod")?;
    made.metadata.managed_fields = None;
    made.metadata.resource_version = None;
    made.metadata.uid = None;
    made.metadata.labels.get_or_insert_default().insert(label::INJECT.to_owned(), "false".to_owned());
    Ok(serde_json::to_value(made)?)
}

fn dry() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// The API server's refusal of a pod; `None` if it is accepted.
async fn refusal(world: &World, pod: Value) -> Result<Option<String>> {
    said_against(world.pods().create(&dry(), &serde_json::from_value(pod)?).await)
}

/// The refusal in an answer of the API server, by any policy.
fn said_against<T>(answer: kube::Result<T>) -> Result<Option<String>> {
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.clone());
            Ok(Some([status.message.clone()].into_iter().chain(causes).collect::<Vec<_>>().join("; ")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks that each change of the pod is refused, with a message that names it.
async fn all_refused(world: &World, made: &Value, cases: &[Case]) -> Result<()> {
    for (what, change, named) in cases {
        let mut pod = made.clone();
        change(&mut pod);
        let message = refusal(world, pod).await?.with_context(|| format!("{what}: it was let through"))?;
        ensure!(message.contains("countersign: ") && message.contains(named), "{what}: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn shapes_that_a_later_mutator_or_a_hand_has_bent_are_refused_with_what_is_wrong() {
    scenario_without_namespace("policy", async |world| {
        open_namespace(world).await?;
        let made = made(world, "made").await?;
        assert_eq!(refusal(world, made.clone()).await?, None, "the shape as made");
        all_refused(world, &made, &CASES).await
    })
    .await;
}

/// Other mutators may add their own parts, and a part of the identity may be mounted elsewhere.
#[tokio::test]
async fn shapes_that_others_only_added_to_pass() {
    scenario_without_namespace("policy-pass", async |world| {
        open_namespace(world).await?;
        let made = made(world, "made").await?;
        let changes: [fn(&mut Value); 4] = [
            |pod| {
                let proxy = json!({ "name": "istio-proxy", "image": "proxy", "restartPolicy": "Always" });
                pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, proxy);
            },
            |pod| {
                variables(pod).push(json!({ "name": "HTTPS_PROXY", "value": "http://proxy" }));
                pod["spec"]["volumes"].as_array_mut().unwrap().push(json!({ "name": "countersign-mine", "emptyDir": {} }));
                mounts(agent(pod)).push(json!({ "name": "countersign-mine", "mountPath": "/mine" }));
            },
            |pod| agent(pod)["image"] = json!("countersign.local/agent:another"),
            |pod| {
                let part = json!({ "name": "countersign-identity", "mountPath": "/tls", "subPath": "credentials", "readOnly": true });
                mounts(app(pod)).push(part);
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

/// A mount at an injected path is detected without any label and without an injected volume.
#[tokio::test]
async fn a_pod_that_pretends_to_have_an_identity_is_refused() {
    scenario_without_namespace("policy-lie", async |world| {
        open_namespace(world).await?;
        let pretend = |more| PodSpec { labels: "countersign.dev/inject: 'false'", more, ..PodSpec::hold("lie") };
        let mounted = "volumes: [{name: mine, emptyDir: {}}]\ninitContainers: [{name: i, image: i, volumeMounts: [{name: mine, mountPath: /run/countersign}]}]";
        for spec in [pretend(mounted), PodSpec { annotations: "countersign.dev/injected: sidecar", ..pretend("") }] {
            let message = world.cluster.refusal(&spec.pod(&world.namespace)).await?;
            ensure!(message.contains("needs the container countersign-agent"), "{message}");
        }
        Ok(())
    })
    .await;
}
