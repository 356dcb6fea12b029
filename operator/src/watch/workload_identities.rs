//! WorkloadIdentities.

use std::{collections::HashSet, sync::Arc};

use countersign_crds::WorkloadIdentity;
use kube::{Api, Client, core::DeserializeGuard, runtime::watcher};

use super::{ObjectKey, Sink, follow, stored::Stored};
use crate::{
    freshness::{Freshness, Moment, View},
    http::{Part, Readiness},
    index::{IdentityKey, Index, SharedIndex},
    metrics::{Metrics, Object},
};

/// Follows every WorkloadIdentity; `store` keeps the objects for the controller.
pub async fn watch(
    client: Client,
    index: SharedIndex,
    store: Stored<WorkloadIdentity>,
    freshness: Freshness,
    readiness: Readiness,
    metrics: Arc<Metrics>,
) {
    let api: Api<DeserializeGuard<WorkloadIdentity>> = Api::all(client);
    let sink = WorkloadIdentities { index, store, freshness: freshness.clone(), readiness, metrics: metrics.clone() };
    follow("workloadidentities", api, watcher::Config::default(), sink, freshness, metrics).await;
}

struct WorkloadIdentities {
    index: SharedIndex,
    store: Stored<WorkloadIdentity>,
    freshness: Freshness,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

impl WorkloadIdentities {
    fn count(&self) {
        self.metrics.index_size(Object::WorkloadIdentities, self.index.read(Index::identity_count));
    }
}

fn identity_key(key: &ObjectKey) -> IdentityKey {
    IdentityKey { namespace: key.namespace.clone(), name: key.name.clone() }
}

impl Sink<WorkloadIdentity> for WorkloadIdentities {
    fn applied(&mut self, mut identity: WorkloadIdentity) {
        // Longer than the rest of the object, and nobody here asks who set which field.
        identity.metadata.managed_fields = None;
        self.store.apply(identity.clone());
        self.index.update(|index| index.apply_identity(identity));
        self.count();
    }

    fn gone(&mut self, identity: &ObjectKey) {
        self.store.remove(identity);
        self.index.update(|index| index.remove_identity(&identity_key(identity)));
        self.count();
    }

    fn listed(&mut self, present: &HashSet<ObjectKey>) {
        self.store.retain(present);
        let present = present.iter().map(identity_key).collect();
        self.index.update(|index| index.retain_identities(&present));
        self.readiness.set(Part::WorkloadIdentities);
        self.count();
    }

    fn confirmed(&mut self, at: Moment) {
        self.freshness.confirm(View::WorkloadIdentities, at);
    }
}
