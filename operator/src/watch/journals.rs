//! The authorities' journals: Secrets of one type in a namespace of their own. Beside the watch, the versions are compared
//! with the API server's now and then, so that a watch that went deaf is noticed before anything is signed on old terms.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::ListParams, core::DeserializeGuard, runtime::watcher};

use super::{ObjectKey, Sink, follow};
use crate::{
    authorities::{Authorities, Freshness, store::SECRET_TYPE},
    clock::Clock,
    http::{Part, Readiness},
    metrics::Metrics,
};

/// How often the versions are compared.
const CONFIRM_EACH: Duration = Duration::from_secs(60);

/// How soon again after they differed or could not be read.
const CONFIRM_AGAIN: Duration = Duration::from_secs(5);

fn selector() -> String {
    format!("type={SECRET_TYPE}")
}

/// Follows every journal.
pub async fn watch(
    client: Client,
    namespace: String,
    authorities: Authorities,
    freshness: Freshness,
    clock: Clock,
    readiness: Readiness,
    metrics: Arc<Metrics>,
) {
    let api: Api<DeserializeGuard<Secret>> = Api::namespaced(client, &namespace);
    let sink = Journals { authorities, freshness, clock, readiness };
    follow("journals", api, watcher::Config::default().fields(&selector()), sink, metrics).await;
}

struct Journals {
    authorities: Authorities,
    freshness: Freshness,
    clock: Clock,
    readiness: Readiness,
}

impl Sink<Secret> for Journals {
    fn applied(&mut self, secret: Secret) {
        let name = secret.metadata.name.clone().unwrap_or_default();
        self.authorities.apply_secret(&name, secret.into());
    }

    fn gone(&mut self, secret: &ObjectKey) {
        self.authorities.remove_secret(&secret.name);
    }

    fn listed(&mut self, present: &HashSet<ObjectKey>) {
        let present: HashSet<&str> = present.iter().map(|key| key.name.as_str()).collect();
        let known = self.authorities.read(crate::authorities::book::Book::secret_versions);
        for name in known.keys().filter(|name| !present.contains(name.as_str())) {
            self.authorities.remove_secret(name);
        }
        self.authorities.complete();
        self.freshness.confirm(self.clock.now());
        self.readiness.set(Part::Journals);
    }
}

/// Compares the versions for as long as the process lives.
pub async fn confirm(
    client: Client,
    namespace: String,
    authorities: Authorities,
    freshness: Freshness,
    clock: Clock,
    metrics: Arc<Metrics>,
) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let parameters = ListParams::default().fields(&selector());
    loop {
        let before = clock.now();
        let equal = match api.list_metadata(&parameters).await {
            Ok(list) => {
                let version = |meta: kube::core::ObjectMeta| {
                    (meta.name.unwrap_or_default(), meta.resource_version.unwrap_or_default())
                };
                let stored: HashMap<_, _> = list.items.into_iter().map(|item| version(item.metadata)).collect();
                stored == authorities.read(crate::authorities::book::Book::secret_versions)
            }
            Err(error) => {
                tracing::warn!(%error, "the journals' versions cannot be read");
                false
            }
        };
        if equal {
            freshness.confirm(before);
        }
        metrics.journal_view_age.set(freshness.age(clock.now()).as_secs_f64());
        tokio::time::sleep(if equal { CONFIRM_EACH } else { CONFIRM_AGAIN }).await;
    }
}
