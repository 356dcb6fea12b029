//! The authorities' journals: Secrets of one type in a namespace of their own. Beside the watch, the versions are compared
//! with the API server's now and then, so that a watch that went deaf is noticed before anything is signed on old terms.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use countersign_contract::objects::journal::SECRET_TYPE;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::ListParams, core::DeserializeGuard, runtime::watcher};

use super::{ObjectKey, Sink, follow};
use crate::{authorities::Authorities, metrics::Metrics};
use countersign_issuer::freshness::{Freshness, Moment, View};
use countersign_runtime::readiness::ReadinessCheck;

/// How often the versions are compared.
const CONFIRM_EACH: Duration = Duration::from_secs(60);

/// How soon again after they differed or could not be read.
const CONFIRM_AGAIN: Duration = Duration::from_secs(5);

/// How long the API server may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);

fn selector() -> String {
    format!("type={SECRET_TYPE}")
}

/// Follows every journal.
pub async fn watch(
    client: Client,
    namespace: String,
    authorities: Authorities,
    freshness: Freshness,
    check: ReadinessCheck,
    metrics: Arc<Metrics>,
) {
    let api: Api<DeserializeGuard<Secret>> = Api::namespaced(client, &namespace);
    let sink = Journals { authorities, freshness: freshness.clone(), check, listed: false };
    follow("journals", api, watcher::Config::default().fields(&selector()), sink, freshness, metrics).await;
}

struct Journals {
    authorities: Authorities,
    freshness: Freshness,
    check: ReadinessCheck,
    /// Whether they were listed just now.
    listed: bool,
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
        let known = self.authorities.read(crate::authorities::journal_cache::JournalCache::secret_versions);
        for name in known.keys().filter(|name| !present.contains(name.as_str())) {
            self.authorities.remove_secret(name);
        }
        self.authorities.complete();
        self.listed = true;
        self.check.pass();
    }

    /// By a list only: afterwards versions are compared ([`confirm`]), which an API server whose own cache stands still does
    /// not stand.
    fn confirmed(&mut self, at: Moment) {
        if std::mem::take(&mut self.listed) {
            self.freshness.confirm(View::Journals, at);
        }
    }
}

/// Compares the versions for as long as the process lives.
pub async fn confirm(client: Client, namespace: String, authorities: Authorities, freshness: Freshness) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let parameters = ListParams::default().fields(&selector());
    loop {
        let before = freshness.now();
        let equal = match tokio::time::timeout(ANSWER_TIME, api.list_metadata(&parameters)).await {
            Ok(Ok(list)) => {
                let version = |meta: kube::core::ObjectMeta| {
                    (meta.name.unwrap_or_default(), meta.resource_version.unwrap_or_default())
                };
                let stored: HashMap<_, _> = list.items.into_iter().map(|item| version(item.metadata)).collect();
                stored == authorities.read(crate::authorities::journal_cache::JournalCache::secret_versions)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the journals' versions cannot be read");
                false
            }
            Err(_) => {
                tracing::warn!("the API server did not answer with the journals' versions in time");
                false
            }
        };
        if equal {
            freshness.confirm(View::Journals, before);
        }
        tokio::time::sleep(if equal { CONFIRM_EACH } else { CONFIRM_AGAIN }).await;
    }
}
