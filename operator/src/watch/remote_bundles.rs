//! What the leader keeps of remote trust domains: ConfigMaps with one label in a namespace of their own.

use std::{collections::HashSet, sync::Arc};

use countersign_contract::objects::remote_bundle::{LABEL, LABEL_VALUE, PREFIX};
use countersign_issuer::freshness::Freshness;
use countersign_runtime::readiness::ReadinessCheck;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, core::DeserializeGuard, runtime::watcher};

use super::{ObjectKey, Sink, follow};
use crate::{
    federation::{RemoteBundles, store::StoredBundle},
    metrics::Metrics,
};

/// Follows every such ConfigMap.
pub async fn watch(
    client: Client,
    namespace: String,
    bundles: RemoteBundles,
    freshness: Freshness,
    check: ReadinessCheck,
    metrics: Arc<Metrics>,
) {
    let api: Api<DeserializeGuard<ConfigMap>> = Api::namespaced(client, &namespace);
    let selected = watcher::Config::default().labels(&format!("{LABEL}={LABEL_VALUE}"));
    follow("remote bundles", api, selected, StoredBundles { bundles, check }, freshness, metrics).await;
}

struct StoredBundles {
    bundles: RemoteBundles,
    check: ReadinessCheck,
}

impl Sink<ConfigMap> for StoredBundles {
    fn applied(&mut self, config_map: ConfigMap) {
        if let Some(domain) = config_map.metadata.name.as_deref().and_then(|name| name.strip_prefix(PREFIX)) {
            let domain = domain.to_owned();
            self.bundles.apply_stored(&domain, Some(StoredBundle::from(config_map).bytes));
        }
    }

    fn gone(&mut self, config_map: &ObjectKey) {
        if let Some(domain) = config_map.name.strip_prefix(PREFIX) {
            self.bundles.apply_stored(domain, None);
        }
    }

    fn listed(&mut self, present: &HashSet<ObjectKey>) {
        let present: HashSet<&str> = present.iter().filter_map(|key| key.name.strip_prefix(PREFIX)).collect();
        for domain in self.bundles.stored_names().iter().filter(|domain| !present.contains(domain.as_str())) {
            self.bundles.apply_stored(domain, None);
        }
        self.check.pass();
    }
}
