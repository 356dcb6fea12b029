//! What is kept of remote trust domains, in ConfigMaps: one for each TrustDomain, which owns it. Written under the fence of their
//! resourceVersion.

use std::collections::BTreeMap;

use countersign_contract::objects::{
    OPERATOR, own_bundle,
    remote_bundle::{KEY, LABEL, LABEL_VALUE, config_map},
};
use countersign_core::federation::StoredRemote;
use countersign_crds::TrustDomain;
use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams, PostParams},
};

/// Why nothing was stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone else wrote it meanwhile.
    #[error("ConfigMap {name} was changed by another; looking again")]
    Conflict {
        /// The ConfigMap's name.
        name: String,
    },
    /// The ConfigMap of this name is not ours.
    #[error("ConfigMap {name} exists without the label {LABEL}={LABEL_VALUE}: it will not be overwritten; remove it")]
    NotOurs {
        /// The ConfigMap's name.
        name: String,
    },
    /// The API server did not do it.
    #[error("ConfigMap {name}: {source}")]
    Kube {
        /// The ConfigMap's name.
        name: String,
        /// What the client said.
        source: Box<kube::Error>,
    },
}

/// A ConfigMap as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBundle {
    /// Its version, which fences writes.
    pub resource_version: String,
    /// What it holds; empty where the key is missing.
    pub bytes: Vec<u8>,
}

/// The ConfigMaps.
#[derive(Clone)]
pub struct BundleStore {
    config_maps: Api<ConfigMap>,
}

impl BundleStore {
    /// The ConfigMaps of `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { config_maps: Api::namespaced(client, namespace) }
    }

    /// What is stored of a TrustDomain.
    ///
    /// # Errors
    /// When it cannot be read, or is not ours.
    pub async fn read(&self, domain: &str) -> Result<Option<StoredBundle>, StoreError> {
        let name = config_map(domain);
        let read = self.config_maps.get_opt(&name).await.map_err(|error| failed(&name, error))?;
        match read {
            Some(read) if !is_ours(&read) => Err(StoreError::NotOurs { name }),
            read => Ok(read.map(StoredBundle::from)),
        }
    }

    /// Stores what is kept of a TrustDomain of that uid: a new ConfigMap when `over` is `None`, else in place of exactly that
    /// version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another was faster.
    pub async fn write(
        &self,
        domain: &str,
        uid: &str,
        stored: &StoredRemote,
        over: Option<&StoredBundle>,
    ) -> Result<StoredBundle, StoreError> {
        let name = config_map(domain);
        let mut object = owned(&name, owner(domain, uid), (LABEL, LABEL_VALUE), (KEY, &stored.to_bytes()));
        object.metadata.resource_version = over.map(|over| over.resource_version.clone());
        let parameters = PostParams::default();
        let written = match over {
            None => self.config_maps.create(&parameters, &object).await,
            Some(_) => self.config_maps.replace(&name, &parameters, &object).await,
        };
        written.map(StoredBundle::from).map_err(|error| failed(&name, error))
    }
}

impl BundleStore {
    /// Publishes the bundle document of a trust domain of this cluster, for people: nothing here reads it.
    ///
    /// # Errors
    /// When the API server does not do it.
    pub async fn publish(&self, domain: &str, uid: &str, document: &[u8]) -> Result<(), StoreError> {
        let name = own_bundle::config_map(domain);
        let label = (own_bundle::LABEL, own_bundle::LABEL_VALUE);
        let object = owned(&name, owner(domain, uid), label, (own_bundle::KEY, document));
        let parameters = PatchParams::apply(OPERATOR).force();
        let applied = self.config_maps.patch(&name, &parameters, &Patch::Apply(&object)).await;
        applied.map(drop).map_err(|error| failed(&name, error))
    }
}

/// A ConfigMap with one label and one entry, which is text.
fn owned(name: &str, owner: OwnerReference, (label, value): (&str, &str), (key, text): (&str, &[u8])) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(label.to_owned(), value.to_owned())])),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(key.to_owned(), String::from_utf8_lossy(text).into_owned())])),
        ..ConfigMap::default()
    }
}

fn owner(domain: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: TrustDomain::api_version(&()).into_owned(),
        kind: TrustDomain::kind(&()).into_owned(),
        name: domain.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

impl std::fmt::Debug for BundleStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BundleStore")
    }
}

impl From<ConfigMap> for StoredBundle {
    fn from(config_map: ConfigMap) -> Self {
        let bytes = config_map.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default().into_bytes();
        Self { resource_version: config_map.metadata.resource_version.unwrap_or_default(), bytes }
    }
}

fn is_ours(config_map: &ConfigMap) -> bool {
    let labels = config_map.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(LABEL)).is_some_and(|value| value == LABEL_VALUE)
}

fn failed(name: &str, error: kube::Error) -> StoreError {
    match &error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict { name: name.to_owned() },
        _ => StoreError::Kube { name: name.to_owned(), source: Box::new(error) },
    }
}
