//! Namespaces: their labels, by which grants select them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, core::DeserializeGuard, runtime::watcher};

use super::{ObjectKey, Sink, follow};
use crate::metrics::{Metrics, Object};
use countersign_index::SharedIndex;
use countersign_issuer::freshness::{Freshness, Moment, View};
use countersign_runtime::readiness::ReadinessCheck;

/// Follows every namespace of the cluster.
pub async fn watch(
    client: Client,
    index: SharedIndex,
    freshness: Freshness,
    listed: ReadinessCheck,
    metrics: Arc<Metrics>,
) {
    let api: Api<DeserializeGuard<Namespace>> = Api::all(client);
    let sink = Namespaces { index, freshness: freshness.clone(), listed, metrics: metrics.clone() };
    follow("namespaces", api, watcher::Config::default(), sink, freshness, metrics).await;
}

struct Namespaces {
    index: SharedIndex,
    freshness: Freshness,
    listed: ReadinessCheck,
    metrics: Arc<Metrics>,
}

impl Namespaces {
    fn count(&self) {
        self.metrics.index_size(Object::Namespaces, self.index.read(countersign_index::Index::namespace_count));
    }
}

impl Sink<Namespace> for Namespaces {
    fn applied(&mut self, namespace: Namespace) {
        let name = namespace.metadata.name.unwrap_or_default();
        let labels: BTreeMap<String, String> = namespace.metadata.labels.unwrap_or_default();
        self.index.update(|index| index.apply_namespace(&name, labels));
        self.count();
    }

    fn gone(&mut self, namespace: &ObjectKey) {
        self.index.update(|index| index.remove_namespace(&namespace.name));
        self.count();
    }

    fn listed(&mut self, present: &HashSet<ObjectKey>) {
        let present: HashSet<&str> = present.iter().map(|key| key.name.as_str()).collect();
        self.index.update(|index| index.retain_namespaces(&present));
        self.listed.pass();
        self.count();
    }

    fn confirmed(&mut self, at: Moment) {
        self.freshness.confirm(View::Namespaces, at);
    }
}
