//! TrustDomains.

use countersign_policy as policy;
use std::{collections::HashSet, sync::Arc};

use countersign_crds::TrustDomain;
use kube::{Api, Client, core::DeserializeGuard, runtime::watcher};

use super::{ObjectKey, Sink, follow, stored::Stored};
use crate::metrics::{Metrics, Object};
use countersign_index::{Index, SharedIndex};
use countersign_issuer::freshness::{Freshness, Moment, View};
use countersign_runtime::readiness::ReadinessCheck;

/// Follows every TrustDomain; `store` keeps the objects for the controller. `cluster` is what `{cluster}` in a path stands for,
/// empty when the cluster has no name.
pub async fn watch(
    client: Client,
    cluster: String,
    index: SharedIndex,
    store: Stored<TrustDomain>,
    freshness: Freshness,
    listed: ReadinessCheck,
    metrics: Arc<Metrics>,
) {
    let api: Api<DeserializeGuard<TrustDomain>> = Api::all(client);
    let sink = TrustDomains { cluster, index, store, freshness: freshness.clone(), listed, metrics: metrics.clone() };
    follow("trustdomains", api, watcher::Config::default(), sink, freshness, metrics).await;
}

struct TrustDomains {
    cluster: String,
    index: SharedIndex,
    store: Stored<TrustDomain>,
    freshness: Freshness,
    listed: ReadinessCheck,
    metrics: Arc<Metrics>,
}

impl TrustDomains {
    fn count(&self) {
        self.metrics.index_size(Object::TrustDomains, self.index.read(Index::domain_count));
    }
}

impl Sink<TrustDomain> for TrustDomains {
    fn applied(&mut self, domain: TrustDomain) {
        self.store.apply(domain.clone());
        self.index.update(|index| index.apply_domain(policy::trust_domain(&domain, &self.cluster)));
        self.count();
    }

    fn gone(&mut self, domain: &ObjectKey) {
        self.store.remove(domain);
        self.index.update(|index| index.remove_domain(&domain.name));
        self.count();
    }

    fn listed(&mut self, present: &HashSet<ObjectKey>) {
        self.store.retain(present);
        let present: HashSet<&str> = present.iter().map(|key| key.name.as_str()).collect();
        self.index.update(|index| index.retain_domains(&present));
        self.listed.pass();
        self.count();
    }

    fn confirmed(&mut self, at: Moment) {
        self.freshness.confirm(View::TrustDomains, at);
    }
}
