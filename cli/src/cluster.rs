//! Reads a cluster with the rights of the caller.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use countersign_contract::objects::{SYSTEM_NAMESPACE, control_plane};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, PartialObjectMeta},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;

use crate::{Options, objects::Objects};

/// A cluster, and the namespace that is asked about.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Objects of one answer of a list: the API server makes each of one moment.
const PAGE: u32 = 500;

impl Cluster {
    pub(crate) async fn connect(options: &Options) -> Result<Self> {
        // Only the first of a process is installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = config(options).await?;
        let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config)?, namespace })
    }

    /// All objects of a kind in the cluster.
    pub(crate) async fn list<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.list_of(Api::all(self.client.clone())).await
    }

    /// All objects of a kind in a namespace.
    pub(crate) async fn list_in<K>(&self, namespace: &str) -> Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.list_of(Api::namespaced(self.client.clone(), namespace)).await
    }

    async fn list_of<K>(&self, api: Api<K>) -> Result<Vec<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let mut found = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = api.list(&page).await.with_context(|| format!("listing {}", K::plural(&())))?;
            found.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// The value of `{cluster}` in paths, which the operator publishes; empty if it has none, or it cannot be read.
    pub(crate) async fn name_in_paths(&self) -> String {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let read = maps.get_opt(control_plane::CONFIG_MAP).await.ok().flatten();
        let data = read.and_then(|map| map.data).unwrap_or_default();
        data.get(control_plane::CLUSTER_NAME).cloned().unwrap_or_default()
    }

    /// A pod of the namespace that is asked about.
    pub(crate) async fn pod(&self, name: &str) -> Result<Option<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        pods.get_opt(name).await.with_context(|| format!("reading pod {}/{name}", self.namespace))
    }

    /// Everything that decides about identities. Pods that have ended are among them.
    pub(crate) async fn objects(&self) -> Result<Objects> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespaces = namespaces.list_metadata(&ListParams::default()).await.context("listing namespaces")?;
        Ok(Objects {
            domains: self.list().await.context("is Countersign installed?")?,
            identities: self.list().await?,
            namespaces: namespaces.items.into_iter().map(namespace_of).collect(),
            pods: self.list().await?,
            cluster: self.name_in_paths().await,
        })
    }

    /// What decides about the pods of the namespace that is asked about, without these.
    pub(crate) async fn objects_of_namespace(&self) -> Result<Objects> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = self.namespace.as_str();
        let own = namespaces.get_metadata(namespace).await.with_context(|| format!("reading namespace {namespace}"))?;
        Ok(Objects {
            domains: self.list().await.context("is Countersign installed?")?,
            identities: self.list().await?,
            namespaces: vec![namespace_of(own)],
            pods: Vec::new(),
            cluster: self.name_in_paths().await,
        })
    }
}

fn namespace_of(found: PartialObjectMeta<Namespace>) -> Namespace {
    Namespace { metadata: found.metadata, ..Namespace::default() }
}

async fn config(options: &Options) -> Result<Config> {
    let chosen = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    match &options.kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(file).with_context(|| format!("reading {}", file.display()))?;
            Ok(Config::from_custom_kubeconfig(read, &chosen).await?)
        }
        None if options.context.is_some() => Ok(Config::from_kubeconfig(&chosen).await?),
        None => Config::infer().await.context("no kubeconfig, and this is not a pod"),
    }
}
