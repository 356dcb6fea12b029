//! WorkloadIdentities.

use countersign_policy as policy;
use std::{collections::HashSet, sync::Arc};

use countersign_crds::WorkloadIdentity;
use kube::{Api, Client, api::ObjectMeta, core::DeserializeGuard, runtime::watcher};

use super::{ObjectKey, Sink, follow, stored::Stored};
use crate::metrics::{Metrics, Object};
use countersign_index::{IdentityKey, Index, SharedIndex};
use countersign_issuer::freshness::{Freshness, Moment, View};
use countersign_runtime::readiness::ReadinessCheck;

/// Follows every WorkloadIdentity; `store` keeps the objects for the controller.
pub async fn watch(
    client: Client,
    index: SharedIndex,
    store: Stored<WorkloadIdentity>,
    freshness: Freshness,
    listed: ReadinessCheck,
    metrics: Arc<Metrics>,
) {
    let api: Api<DeserializeGuard<WorkloadIdentity>> = Api::all(client);
    let sink = WorkloadIdentities { index, store, freshness: freshness.clone(), listed, metrics: metrics.clone() };
    follow("workloadidentities", api, watcher::Config::default(), sink, freshness, metrics).await;
}

/// What of the metadata decides something.
fn decisive(metadata: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        ..ObjectMeta::default()
    }
}

struct WorkloadIdentities {
    index: SharedIndex,
    store: Stored<WorkloadIdentity>,
    freshness: Freshness,
    listed: ReadinessCheck,
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
        // All of it is kept twice, and whoever writes the object chooses how long its labels and annotations are.
        identity.metadata = decisive(std::mem::take(&mut identity.metadata));
        self.store.apply(identity.clone());
        self.index.update(|index| index.apply_identity(policy::workload_identity(&identity)));
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
        self.listed.pass();
        self.count();
    }

    fn confirmed(&mut self, at: Moment) {
        self.freshness.confirm(View::WorkloadIdentities, at);
    }
}

#[cfg(test)]
mod tests {
    use super::{ObjectMeta, decisive};

    #[test]
    fn of_a_workload_identitys_metadata_nothing_is_kept_that_decides_nothing() {
        let text = || Some("text".to_owned());
        let long = || Some([("key".to_owned(), "x".repeat(1000))].into());
        let kept =
            ObjectMeta { name: text(), namespace: text(), uid: text(), generation: Some(3), ..ObjectMeta::default() };
        let sent =
            ObjectMeta { labels: long(), annotations: long(), finalizers: Some(vec!["f".to_owned()]), ..kept.clone() };
        assert_eq!(decisive(sent), kept);
    }
}
