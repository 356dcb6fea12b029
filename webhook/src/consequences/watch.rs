//! Keeps what is known up to date.

use std::{collections::HashSet, time::Duration};

use countersign_crds::{TrustDomain, WorkloadIdentity, WorkloadIdentitySpec};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt as _,
    api::PartialObjectMeta,
    core::{ApiResource, NotUsed, Object},
    runtime::{WatchStreamExt, watcher},
};

use super::{Consequences, Known, key_of};
use crate::control_plane::Current;

/// How many objects are read at a time. A WorkloadIdentity has at most 1.5 MiB, and the webhook little memory.
const PAGE: u32 = 20;

/// Without its status, which may be long.
type StoredIdentity = Object<WorkloadIdentitySpec, NotUsed>;

/// An event of one of the watches.
enum Event {
    Namespace(Box<watcher::Event<PartialObjectMeta<Namespace>>>),
    Domain(Box<watcher::Event<TrustDomain>>),
    Identity(Box<watcher::Event<StoredIdentity>>),
}

/// The names of the objects that were listed since a watch began anew.
#[derive(Default)]
struct Listing {
    namespaces: HashSet<String>,
    domains: HashSet<String>,
    identities: HashSet<countersign_index::IdentityKey>,
}

/// Follows the objects for as long as the program runs.
pub async fn watch(client: Client, settings: Current, consequences: Consequences) {
    // Patterns are read with the cluster's name, which the operator publishes.
    let name = loop {
        if let Some(settings) = settings.load_full() {
            break settings.cluster_name.clone();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    consequences.0.lock().cluster = name;
    let mut events = Box::pin(events(client));
    let mut listing = Listing::default();
    while let Some(event) = events.next().await {
        let mut known = consequences.0.lock();
        match event {
            Ok(event) => apply(&mut known, &mut listing, event),
            Err(error) => tracing::warn!(%error, "cannot watch what warnings depend on; trying again"),
        }
        // Nobody writes a status here.
        drop(known.index.take_dirty());
    }
}

fn events(client: Client) -> impl Stream<Item = Result<Event, watcher::Error>> {
    let page = watcher::Config::default().page_size(PAGE);
    let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), watcher::Config::default());
    let domains = watcher(Api::<TrustDomain>::all(client.clone()), page.clone());
    let kind = ApiResource::erase::<WorkloadIdentity>(&());
    let identities = watcher(Api::<StoredIdentity>::all_with(client, &kind), page);
    stream::select(
        namespaces.default_backoff().map(|event| event.map(|event| Event::Namespace(Box::new(event)))),
        stream::select(
            domains.default_backoff().map(|event| event.map(|event| Event::Domain(Box::new(event)))),
            identities.default_backoff().map(|event| event.map(|event| Event::Identity(Box::new(event)))),
        ),
    )
}

fn apply(known: &mut Known, listing: &mut Listing, event: Event) {
    match event {
        Event::Namespace(event) => namespace(known, &mut listing.namespaces, *event),
        Event::Domain(event) => domain(known, &mut listing.domains, *event),
        Event::Identity(event) => identity(known, &mut listing.identities, *event),
    }
}

fn namespace(known: &mut Known, listed: &mut HashSet<String>, event: watcher::Event<PartialObjectMeta<Namespace>>) {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    match event {
        Init => listed.clear(),
        Apply(object) | InitApply(object) => {
            listed.insert(object.name_any());
            known.apply_namespace(&object.name_any(), object.labels().clone());
        }
        Delete(object) => known.index.remove_namespace(&object.name_any()),
        InitDone => {
            known.index.retain_namespaces(&listed.iter().map(String::as_str).collect());
            known.listed[0] = true;
        }
    }
}

fn domain(known: &mut Known, listed: &mut HashSet<String>, event: watcher::Event<TrustDomain>) {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    match event {
        Init => listed.clear(),
        Apply(object) | InitApply(object) => {
            listed.insert(object.name_any());
            known.apply_domain(object);
        }
        Delete(object) => known.remove_domain(&object.name_any()),
        InitDone => {
            let gone: Vec<_> = known.domains.keys().filter(|name| !listed.contains(*name)).cloned().collect();
            gone.iter().for_each(|name| known.remove_domain(name));
            known.listed[1] = true;
        }
    }
}

fn identity(
    known: &mut Known,
    listed: &mut HashSet<countersign_index::IdentityKey>,
    event: watcher::Event<StoredIdentity>,
) {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    match event {
        Init => listed.clear(),
        Apply(object) | InitApply(object) => {
            let object = read(object);
            listed.insert(key_of(&object));
            known.apply_identity(&object);
        }
        Delete(object) => known.remove_identity(&key_of(&read(object))),
        InitDone => {
            known.retain_identities(listed);
            known.listed[2] = true;
        }
    }
}

/// Its claims count as old as it is: the ages that are recorded in its status are not read.
fn read(object: StoredIdentity) -> WorkloadIdentity {
    let mut metadata = object.metadata;
    metadata.generation = Some(1);
    metadata.managed_fields = None;
    WorkloadIdentity { metadata, spec: object.spec, status: None }
}
