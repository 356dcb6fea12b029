//! R87: no private key of a workload leaves its pod, and no token is where it does not belong: every one that this run saw is
//! looked for in all logs (of which some are written at debug level here), events and objects.
//!
//! Runs after the tests whose keys and tokens it looks for.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result};
use countersign_e2e::{
    Cluster, World,
    cluster::SYSTEM,
    fixture::{AUDIENCE, PodSpec},
    pods::APP,
    scenario,
    secrets::{Search, Secret, Seen},
    until::{PATIENCE, until, watch},
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Discovery, ResourceExt as _,
    api::{DynamicObject, ListParams, LogParams, Patch, PatchParams},
    discovery::verbs,
};
use serde_json::{Value, json};

/// Our Deployments and their containers.
const COMPONENTS: [(&str, &str); 2] = [("countersign-operator", "operator"), ("countersign-webhook", "webhook")];

#[tokio::test]
async fn no_key_and_no_token_is_in_logs_events_or_objects() {
    scenario("secrets", async |world| {
        // What the tests before this one left in the logs, which a rollout takes away.
        look_everywhere(&world.cluster).await?;
        log_level(&world.cluster, json!({ "name": "COUNTERSIGN_LOG", "value": "debug" })).await?;
        let looked = live_and_look(world).await;
        log_level(&world.cluster, json!({ "name": "COUNTERSIGN_LOG", "$patch": "delete" })).await?;
        looked?;
        Seen::of(&world.cluster).await?.forget()
    })
    .await;
}

/// The search is not blind: a token in a log and one in an object are found.
#[tokio::test]
async fn what_is_there_is_found() {
    scenario("found", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("loud", &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
        let loud = PodSpec { restart: "Never", ..PodSpec::demo("loud", &["token", "--audience", AUDIENCE]) };
        world.cluster.apply(&loud.pod(&world.namespace)).await?;
        world.succeeded("loud").await?;
        let token = world.logs("loud", APP).await?.trim().to_owned();
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: loud, namespace: {}}}\ndata: {{token: {token}}}\n",
            world.namespace
        );
        world.cluster.apply(&map).await?;

        let mut search = Search::new(&[Secret::token("the token".to_owned(), &token)])?;
        let mut found = Vec::new();
        logs(&world.cluster, &mut search, &mut found).await?;
        objects(&world.cluster, &mut search, &mut found).await?;
        let places =
            [format!("in the log of {}/loud/{APP}", world.namespace), format!("in ConfigMap {}/loud", world.namespace)];
        for place in places {
            assert!(found.iter().any(|found| found.ends_with(&place)), "nothing {place}: {found:?}");
        }
        Ok(())
    })
    .await;
}

/// At debug level: a pod lives through renewals, each kind of secret is seen, and nothing of it anywhere else.
async fn live_and_look(world: &World) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("x509: {svidTTL: 20s}, jwt: {svidTTL: 20s}")).await?;
    world.cluster.apply(&world.identity_yaml("keeper", &format!("jwt: {{audiences: [{AUDIENCE}]}}"))).await?;
    let spec = PodSpec::hold("keeper");
    world.shaped_by_hand(&spec, &[("COUNTERSIGN_LOG", "debug")]).await?;
    world.ready("keeper").await?;

    let mut serials = std::collections::BTreeSet::new();
    until("the identity was renewed twice", PATIENCE, async || {
        serials.insert(world.credential("keeper").await?.serial);
        world.jwt_file("keeper", AUDIENCE).await?;
        Ok((serials.len() >= 3).then_some(()))
    })
    .await?;
    world.jwt("keeper", AUDIENCE).await?;
    let audience = world.cluster.control_plane().await?.audience;
    let pod = countersign_e2e::pods::identity_of(&world.ready("keeper").await?)?;
    let token = world.service_account_token("keeper", &[&audience], Some(&pod)).await?;
    let issuer = countersign_e2e::issuer::Issuer::connect(&world.cluster).await?;
    issuer.open(&token).await?.state().await?;
    issuer.refusal(&countersign_e2e::tokens::signed_by_another_key(&token)?).await?;
    look_everywhere(&world.cluster).await
}

/// Searches all logs and all objects (events are objects) for all that was seen so far.
async fn look_everywhere(cluster: &Cluster) -> Result<()> {
    let secrets = Seen::of(cluster).await?.secrets()?;
    let mut search = Search::new(&secrets)?;
    let mut found = Vec::new();
    logs(cluster, &mut search, &mut found).await?;
    objects(cluster, &mut search, &mut found).await?;
    // Where the cluster can be asked for one, what its API server wrote down of every request.
    if let Some(path) = std::env::var_os("COUNTERSIGN_AUDIT_LOG") {
        let text = std::fs::read_to_string(path).context("read the audit log")?;
        found.extend(search.find("audit log", &text).iter().map(|secret| format!("{secret} in the audit log")));
    }
    anyhow::ensure!(found.is_empty(), "{} secrets were looked for; found: {found:#?}", secrets.len());
    for place in ["logs", "objects"] {
        anyhow::ensure!(search.searched.get(place) > Some(&0), "nothing was searched in {place}");
    }
    Ok(())
}

/// Of every container that there is, and of the one before it.
async fn logs(cluster: &Cluster, search: &mut Search, found: &mut Vec<String>) -> Result<()> {
    for pod in Api::<Pod>::all(cluster.client.clone()).list(&ListParams::default()).await? {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let spec = pod.spec.unwrap_or_default();
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            for previous in [false, true] {
                let what = LogParams { container: Some(container.name.clone()), previous, ..LogParams::default() };
                // One that has not started, or has no past, has no log.
                let Ok(text) = cluster.api::<Pod>(&namespace).logs(&name, &what).await else { continue };
                found.extend(
                    search
                        .find("logs", &text)
                        .iter()
                        .map(|secret| format!("{secret} in the log of {namespace}/{name}/{}", container.name)),
                );
            }
        }
    }
    Ok(())
}

/// Of every kind that can be listed, with the values of Secrets decoded.
async fn objects(cluster: &Cluster, search: &mut Search, found: &mut Vec<String>) -> Result<()> {
    for group in Discovery::new(cluster.client.clone()).run().await?.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
            let listed = api.list(&ListParams::default()).await.with_context(|| format!("list {}", resource.plural))?;
            for object in listed {
                let mut text = serde_json::to_string(&object)?;
                text.extend(decoded(&object.data["data"]));
                let place =
                    format!("{} {}/{}", resource.kind, object.namespace().unwrap_or_default(), object.name_any());
                found.extend(search.find("objects", &text).iter().map(|secret| format!("{secret} in {place}")));
            }
        }
    }
    Ok(())
}

/// The values of a Secret, as text.
fn decoded(data: &Value) -> impl Iterator<Item = String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    data.as_object().into_iter().flatten().filter_map(|(_, value)| {
        let bytes = STANDARD.decode(value.as_str()?).ok()?;
        Some(format!(" {}", String::from_utf8_lossy(&bytes)))
    })
}

/// Sets (or with `$patch: delete` removes) a variable of our components, and waits until they run with it.
async fn log_level(cluster: &Cluster, variable: Value) -> Result<()> {
    let deployments = cluster.api::<Deployment>(SYSTEM);
    for (name, container) in COMPONENTS {
        let patch =
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": container, "env": [variable] }] } } } });
        deployments.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    }
    for (name, _) in COMPONENTS {
        watch(&deployments, name, "rolled out", rolled_out).await?;
    }
    // The old ones end while the new ones serve.
    until("the old ones are gone", PATIENCE, async || {
        let pods = cluster.api::<Pod>(SYSTEM).list(&ListParams::default()).await?;
        Ok(pods.items.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()).then_some(()))
    })
    .await
}

fn rolled_out(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.replicas.unwrap_or(1);
    status.observed_generation >= deployment.metadata.generation
        && [status.updated_replicas, status.available_replicas, status.replicas]
            .iter()
            .all(|count| count.unwrap_or(0) == wanted)
}
