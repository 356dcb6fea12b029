//! Reads what goes into a dump, with the caller's rights. What may not be read is noted, and the rest is read.

mod logs;
mod sources;

use countersign_contract::{metadata::annotation, objects::OPERATOR};
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams},
};
use serde_json::Value;

use super::{Args, Entry, reduce};
use crate::{
    cluster::Cluster,
    reading::{Gap, Reading, Right},
};
use sources::{Scope, Source};

/// How many objects of one kind are kept.
const OBJECTS: usize = 2000;

/// How many pods of workloads are kept: those that are not ready come first.
const PODS: usize = 500;

/// Of one answer of the API server.
const PAGE: u32 = 500;

/// What was read, and what was not.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) entries: Vec<Entry>,
    pub(super) gaps: Vec<String>,
}

impl Collected {
    fn add(&mut self, path: String, object: &Value) {
        match serde_saphyr::to_string(object) {
            Ok(text) => self.entries.push(Entry { path, text }),
            Err(error) => self.gaps.push(format!("{path}: {error}")),
        }
    }

    fn note(&mut self, what: &str, gap: Option<Gap<'_>>) {
        match gap {
            // Not every installation has everything.
            None | Some(Gap::Absent) => {}
            Some(gap) => {
                let note = format!("{what}: {gap}");
                if !self.gaps.contains(&note) {
                    self.gaps.push(note);
                }
            }
        }
    }
}

pub(super) async fn collect(cluster: &Cluster, args: &Args) -> Collected {
    let mut collected = Collected::default();
    let namespaces = sources::namespaces(&args.installation.system_namespace);
    for source in sources::all(&namespaces) {
        objects(cluster, &source, &mut collected).await;
    }
    for namespace in &namespaces {
        secrets(cluster, namespace, &mut collected).await;
    }
    let pods = workload_pods(cluster, &mut collected).await;
    events(cluster, &mut collected).await;
    logs::collect(cluster, args, &namespaces, &pods, &mut collected).await;
    collected
}

async fn objects(cluster: &Cluster, source: &Source, collected: &mut Collected) {
    let found = list(cluster, source).await;
    collected.note(&source.label(), found.gap());
    if source.resource.kind == "Event" {
        let events = found.items().iter().filter_map(|event| serde_json::to_value(event).ok());
        lines(&format!("events/{}.jsonl", source.namespace().unwrap_or("all")), events, collected);
        return;
    }
    for object in found.items().iter().filter(|object| source.is_wanted(&object.name_any())).take(OBJECTS) {
        let Ok(mut value) = serde_json::to_value(object) else { continue };
        // Items of a list do not say what they are.
        if let Some(fields) = value.as_object_mut() {
            fields.insert("apiVersion".to_owned(), source.resource.api_version.clone().into());
            fields.insert("kind".to_owned(), source.resource.kind.clone().into());
        }
        let reduced = match source.scope {
            Scope::Names => reduce::labels(value),
            _ => reduce::own(value),
        };
        collected.add(path("objects", &source.resource.plural, object), &reduced);
    }
}

/// `folder/plural/namespace_name.yaml`; the names of some objects have colons.
fn path(folder: &str, plural: &str, object: &DynamicObject) -> String {
    let name = object.name_any().replace(':', "_");
    let name = object.namespace().map_or_else(|| name.clone(), |namespace| format!("{namespace}_{name}"));
    format!("{folder}/{plural}/{name}.yaml")
}

async fn list(cluster: &Cluster, source: &Source) -> Reading<Vec<DynamicObject>> {
    let api: Api<DynamicObject> = match source.namespace() {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &source.resource),
        None => Api::all_with(cluster.client.clone(), &source.resource),
    };
    let right = || Right::new("list", source.label(), source.namespace());
    let mut page = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let answer = match Reading::from(api.list(&page).await, right) {
            Reading::Found(answer) => answer,
            other => return other.map(|_| Vec::new()),
        };
        found.extend(answer.items);
        match answer.metadata.continue_.filter(|token| !token.is_empty() && found.len() < OBJECTS) {
            Some(token) => page = page.continue_token(&token),
            None => return Reading::Found(found),
        }
    }
}

/// Metadata alone: the API server does not send the rest.
async fn secrets(cluster: &Cluster, namespace: &str, collected: &mut Collected) {
    let api: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let found = api.list_metadata(&ListParams::default()).await.map(|list| list.items);
    let found = Reading::from(found, || Right::of::<Secret>("list", Some(namespace)));
    collected.note("secrets (names and ages)", found.gap());
    for secret in found.items() {
        let Ok(value) = serde_json::to_value(secret) else { continue };
        let name = secret.metadata.name.clone().unwrap_or_default();
        collected.add(format!("objects/secrets/{namespace}_{name}.yaml"), &reduce::secret(&value));
    }
}

/// Pods of workloads that have an agent.
async fn workload_pods(cluster: &Cluster, collected: &mut Collected) -> Vec<DynamicObject> {
    let source = sources::pods();
    let found = list(cluster, &source).await;
    collected.note("pods of workloads", found.gap());
    let injected = found.items().iter().filter(|pod| pod.annotations().contains_key(annotation::INJECTED));
    let mut pods: Vec<DynamicObject> = injected.cloned().collect();
    pods.sort_by_key(is_ready);
    if pods.len() > PODS {
        collected.gaps.push(format!("pods of workloads: {} of {} are kept", PODS, pods.len()));
    }
    for pod in pods.iter().take(PODS) {
        let Ok(value) = serde_json::to_value(pod) else { continue };
        collected.add(path("workloads", "pods", pod), &reduce::workload_pod(value));
    }
    pods
}

fn is_ready(pod: &DynamicObject) -> bool {
    let conditions = pod.data.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let is = |condition: &Value, key: &str, value: &str| condition.get(key).is_some_and(|found| found == value);
    conditions.into_iter().any(|condition| is(condition, "type", "Ready") && is(condition, "status", "True"))
}

/// The operator's events on pods.
async fn events(cluster: &Cluster, collected: &mut Collected) {
    let api: Api<Event> = Api::all(cluster.client.clone());
    let selected = ListParams::default().fields(&format!("reportingComponent={OPERATOR}")).limit(PAGE * 4);
    let found = api.list(&selected).await.map(|list| list.items);
    let found = Reading::from(found, || Right::of::<Event>("list", None));
    collected.note("events of the operator", found.gap());
    if let Reading::Found(events) = &found {
        let events = events.iter().filter_map(|event| serde_json::to_value(event).ok());
        lines("events/operator.jsonl", events, collected);
    }
}

/// Many small objects in one file, each on a line.
fn lines(path: &str, objects: impl Iterator<Item = Value>, collected: &mut Collected) {
    let text: String = objects.map(|object| format!("{}\n", reduce::own(object))).collect();
    if !text.is_empty() {
        collected.entries.push(Entry { path: path.to_owned(), text });
    }
}
