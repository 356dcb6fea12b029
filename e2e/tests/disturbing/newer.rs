//! Custom resources of a newer version, with fields that this operator does not know: it serves the fields that it knows
//! and removes none.

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World,
    cluster::Cluster,
    faults::{alone, report_counts},
    fixture::PodSpec,
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

/// The definitions.
const DEFINITIONS: [&str; 2] = ["workloadidentities.countersign.dev", "trustdomains.countersign.dev"];
/// The name of a field that no version has.
const FIELD: &str = "e2eOfANewerVersion";

/// Adds the field to spec and status in the definitions, or removes it.
async fn known(cluster: &Cluster, known: bool) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    for name in DEFINITIONS {
        let schema = known.then(|| json!({ "type": "string" }));
        let fields = json!({ "properties": { FIELD: schema } });
        let mut definition = definitions.get(name).await?;
        for version in &mut definition.spec.versions {
            let mut value = serde_json::to_value(&version.schema)?;
            for part in ["spec", "status"] {
                let at = value
                    .pointer_mut(&format!("/openAPIV3Schema/properties/{part}"))
                    .context("a part of the schema")?;
                merge(at, &fields);
            }
            version.schema = serde_json::from_value(value)?;
        }
        definition.metadata.managed_fields = None;
        definitions.replace(name, &kube::api::PostParams::default(), &definition).await?;
    }
    Ok(())
}

/// RFC 7396 as far as needed: objects are merged, null removes.
fn merge(into: &mut Value, from: &Value) {
    let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) else { return };
    for (key, value) in from {
        match value {
            Value::Null => drop(into.remove(key)),
            Value::Object(_) if into.get(key).is_some_and(Value::is_object) => {
                if let Some(at) = into.get_mut(key) {
                    merge(at, value);
                }
            }
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

#[tokio::test]
async fn fields_of_a_newer_version_are_passed_over_and_kept() {
    alone("newer", async |world| {
        known(&world.cluster, true).await?;
        let outcome = serve(world).await;
        known(&world.cluster, false).await?;
        outcome
    })
    .await;
}

async fn serve(world: &World) -> Result<()> {
    let domain = format!("{}  {FIELD}: of the domain\n", world.trust_domain_yaml(""));
    let identity = world.identity_yaml("newer", &format!("{FIELD}: of the identity"));
    // The API server serves a changed definition with a delay, and drops the field until then.
    until("the API server knows the field", DEFAULT_TIMEOUT, async || {
        world.cluster.apply(&domain).await?;
        world.cluster.apply(&identity).await?;
        let both = [identity_of(world).await?, domain_of(world).await?];
        Ok(both.iter().all(|object| object.data.pointer(&format!("/spec/{FIELD}")).is_some()).then_some(()))
    })
    .await?;
    let patch = Patch::Merge(json!({ "status": { FIELD: "of a newer operator" } }));
    let identities = world.cluster.workload_identities(&world.namespace).await?;
    identities.patch_status("newer", &PatchParams::apply("e2e-newer-operator"), &patch).await?;

    world.cluster.apply(&PodSpec::hold("newer").pod(&world.namespace)).await?;
    world.ready("newer").await?;
    let id = world.credential("newer").await?.id;
    ensure!(id == world.id("newer"), "the pod has {id}");
    // The operator writes the status again, because the pod is counted now.
    let object = until("the status counts the pod", DEFAULT_TIMEOUT, async || {
        let object = identity_of(world).await?;
        Ok((object.data.pointer("/status/pods/matched") == Some(&json!(1))).then_some(object))
    })
    .await?;
    for (object, path, kept) in [
        (&object, format!("/spec/{FIELD}"), "of the identity"),
        (&object, format!("/status/{FIELD}"), "of a newer operator"),
        (&domain_of(world).await?, format!("/spec/{FIELD}"), "of the domain"),
    ] {
        ensure!(object.data.pointer(&path) == Some(&json!(kept)), "{path} was not kept: {}", object.data);
    }
    report_counts("fields of a newer version", &json!({ "objects_served": 2, "fields_kept": 3 }))
}

async fn identity_of(world: &World) -> Result<DynamicObject> {
    Ok(world.cluster.workload_identities(&world.namespace).await?.get("newer").await?)
}

async fn domain_of(world: &World) -> Result<DynamicObject> {
    Ok(world.cluster.trust_domains().await?.get(&world.trust_domain).await?)
}
