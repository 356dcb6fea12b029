//! Images of a running pod may be changed, the agent's only to another allowed one.

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    apply::delete,
    scenario::scenario_without_namespace,
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::api::{admissionregistration::v1::ValidatingAdmissionPolicyBinding, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{made, open_namespace, said_against};

/// An injected pod that exists and never runs.
async fn stored(world: &World, name: &str) -> Result<()> {
    let mut pod = made(world, name).await?;
    pod["spec"]["nodeSelector"] = json!({ "countersign.dev/no-such-node": "true" });
    pod["metadata"]["finalizers"] = json!(["e2e.countersign.dev/stay"]);
    world.pods().create(&PostParams::default(), &serde_json::from_value::<Pod>(pod)?).await?;
    Ok(())
}

async fn patched(world: &World, name: &str, dry_run: bool, patch: Value) -> Result<Option<String>> {
    let params = PatchParams { dry_run, ..PatchParams::default() };
    said_against(world.pods().patch(name, &params, &Patch::Strategic(patch)).await)
}

fn image(list: &str, container: &str, image: &str) -> Value {
    json!({ "spec": { list: [{ "name": container, "image": image }] } })
}

fn agents_image(of: &str) -> Value {
    image("initContainers", "countersign-agent", of)
}

async fn released(world: &World, name: &str) -> Result<()> {
    world.pods().delete(name, &DeleteParams::default()).await?;
    // A user who removes a finalizer could change other fields at the same time.
    let mut last = agents_image("evil.example/agent:1");
    last["metadata"] = json!({ "finalizers": null });
    let refused = patched(world, name, false, last).await?;
    ensure!(refused.is_none(), "a pod that is being deleted cannot go: {refused:?}");
    Ok(())
}

#[tokio::test]
async fn an_update_brings_no_other_agent_and_never_keeps_a_pod_from_going() {
    scenario_without_namespace("policy-update", async |world| {
        open_namespace(world).await?;
        stored(world, "updated").await?;
        let refused = patched(world, "updated", true, agents_image("evil.example/agent:1")).await?;
        let refused = refused.context("another agent was let in by an update")?;
        ensure!(refused.contains("the image of the container countersign-agent"), "{refused}");
        for change in [
            agents_image("countersign.local/agent:another"),
            image("containers", "app", "another.example/app:1"),
            json!({ "metadata": { "labels": { "more": "yes" } } }),
        ] {
            assert_eq!(patched(world, "updated", true, change.clone()).await?, None, "{change}");
        }
        released(world, "updated").await
    })
    .await;
}

/// A second binding of the policy, for this namespace, with its own list: an image that is no longer listed may stay.
#[tokio::test]
async fn an_agent_whose_image_is_no_longer_allowed_stays_until_it_is_changed() {
    scenario_without_namespace("policy-list", async |world| {
        open_namespace(world).await?;
        stored(world, "listed").await?;
        let name = format!("countersign-agent-image-{}", world.namespace);
        let outcome = own_list(world, &name).await;
        delete(&Api::<ValidatingAdmissionPolicyBinding>::all(world.cluster.client.clone()), &name).await?;
        outcome?;
        released(world, "listed").await
    })
    .await;
}

async fn own_list(world: &World, binding: &str) -> Result<()> {
    let namespace = &world.namespace;
    let listed = async |images: &str| {
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: images, namespace: {namespace}}}\ndata: {{allowed-images: '{images}'}}"
        );
        world.cluster.apply(&map).await.map(drop)
    };
    let refuses = async |image: &str, wanted: bool| {
        until(&format!("{image} is {}", if wanted { "refused" } else { "let in" }), DEFAULT_TIMEOUT, async || {
            let refused = patched(world, "listed", true, agents_image(image)).await?.is_some();
            Ok((refused == wanted).then_some(()))
        })
        .await
    };
    listed("countersign.local/agent:dev").await?;
    world
        .cluster
        .apply(&format!(
            "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {binding}}}
spec:
  policyName: countersign-agent-image
  paramRef: {{name: images, namespace: {namespace}, parameterNotFoundAction: Deny}}
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}}}
  validationActions: [Deny]
"
        ))
        .await?;
    // One tag is listed, then every tag of the name, then none.
    let another = "countersign.local/agent:another";
    refuses(another, true).await?;
    // For an image with tag and digest, the digest decides, and it is not listed.
    refuses(&format!("countersign.local/agent:dev@sha256:{}", "0".repeat(64)), true).await?;
    listed("countersign.local/agent").await?;
    refuses(another, false).await?;
    listed("").await?;
    refuses(another, true).await?;
    let label = json!({ "metadata": { "labels": { "more": "yes" } } });
    assert_eq!(patched(world, "listed", true, label).await?, None, "what is there already may stay");
    Ok(())
}
