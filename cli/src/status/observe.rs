//! Reads what a screen shows.

use countersign_contract::objects::{ENDPOINT, ENDPOINT_NAMESPACE, OPERATOR, WEBHOOK, WEBHOOK_CA};
use countersign_crds::{TrustDomain, WorkloadIdentity};
use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};

use crate::{
    cluster::Cluster,
    installation::{Leader, Replicas},
    reading::{Reading, Right},
};

/// How many events are read: the API server gives the oldest first, so that a limit would hide the newest.
const EVENTS: u32 = 5000;

/// What was read.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) operator: Reading<Replicas>,
    pub(super) webhook: Reading<Replicas>,
    pub(super) webhook_ca: Reading<Replicas>,
    pub(super) endpoint: Reading<Replicas>,
    pub(super) leader: Reading<Leader>,
    pub(super) domains: Reading<Vec<TrustDomain>>,
    pub(super) identities: Reading<Vec<WorkloadIdentity>>,
    pub(super) events: Reading<Vec<Event>>,
}

pub(super) async fn observe(cluster: &Cluster, system: &str) -> Seen {
    let (operator, webhook, webhook_ca, endpoint, leader, domains, identities, events) = futures::join!(
        cluster.replicas(system, OPERATOR),
        cluster.replicas(system, WEBHOOK),
        cluster.replicas(system, WEBHOOK_CA),
        cluster.replicas(ENDPOINT_NAMESPACE, ENDPOINT),
        cluster.leader(system),
        cluster.read_all::<TrustDomain>(),
        cluster.read_all::<WorkloadIdentity>(),
        warnings(cluster),
    );
    Seen { operator, webhook, webhook_ca, endpoint, leader, domains, identities, events }
}

/// The operator's warnings in the whole cluster.
pub(crate) async fn warnings(cluster: &Cluster) -> Reading<Vec<Event>> {
    let events: Api<Event> = Api::all(cluster.client.clone());
    let parameters = ListParams::default().fields(&selector("Warning")).limit(EVENTS);
    let list = events.list(&parameters).await.map(|list| list.items);
    Reading::from(list, || Right::of::<Event>("list", None))
}

/// Selects the operator's events of a type.
pub(super) fn selector(type_: &str) -> String {
    format!("type={type_},reportingComponent={OPERATOR}")
}
