//! The cluster under test.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context as _, Result};
use countersign_contract::{API_GROUP, API_VERSION, environment::test::PEER, objects::control_plane};
use http::{HeaderName, HeaderValue};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Namespace},
};
use kube::{
    Api, Client, Config, Resource,
    api::{ApiResource, DynamicObject},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
    discovery::{self, Scope},
};
use serde::de::DeserializeOwned;

pub use countersign_contract::objects::{AUTHORITIES_NAMESPACE as AUTHORITIES, SYSTEM_NAMESPACE as SYSTEM};

/// A client of the cluster in `KUBECONFIG`.
#[derive(Clone)]
pub struct Cluster {
    /// The client, for requests without a helper.
    pub client: Client,
}

impl Cluster {
    /// Connects to the cluster in `KUBECONFIG`.
    ///
    /// # Errors
    /// `KUBECONFIG` is not set or invalid.
    pub async fn connect() -> Result<Self> {
        Self::with(Self::config().await?)
    }

    /// Connects to the second cluster, of the tests of federation.
    ///
    /// # Errors
    /// The variable is not set, or what it names is invalid.
    pub async fn connect_to_peer() -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let path = std::env::var_os(PEER).with_context(|| format!("{PEER} names the second cluster"))?;
        let kubeconfig = Kubeconfig::read_from(path).context("read the kubeconfig of the second cluster")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Self::with(without_read_timeout(config.context("read the kubeconfig of the second cluster")?))
    }

    /// Connects as [`Self::connect`] and impersonates `user`, with these groups in addition to those of every user of its
    /// kind.
    ///
    /// # Errors
    /// As [`Self::connect`], or the name is not a valid header value.
    pub async fn impersonating(user: &str, groups: &[&str]) -> Result<Self> {
        let mut config = Self::config().await?;
        config.headers.push((HeaderName::from_static("impersonate-user"), HeaderValue::from_str(user)?));
        for group in groups {
            config.headers.push((HeaderName::from_static("impersonate-group"), HeaderValue::from_str(group)?));
        }
        Self::with(config)
    }

    fn with(config: Config) -> Result<Self> {
        Ok(Self { client: Client::try_from(config).context("make a client from KUBECONFIG")? })
    }

    async fn config() -> Result<Config> {
        // Several crates enable a TLS provider; kube uses the process default.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        std::env::var_os("KUBECONFIG")
            .context("KUBECONFIG names the cluster to test; set it, or run `cargo xtask test`")?;
        let config = Config::from_kubeconfig(&KubeConfigOptions::default()).await.context("read KUBECONFIG")?;
        Ok(without_read_timeout(config))
    }

    /// Namespaced objects of a kind known at compile time.
    #[must_use]
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Objects of a kind that the API server is asked for. `namespace` is ignored if the kind is cluster-scoped.
    ///
    /// # Errors
    /// The API server does not know the kind.
    pub async fn kind(&self, gvk: &GroupVersionKind, namespace: &str) -> Result<Api<DynamicObject>> {
        let (resource, capabilities) = discovery::pinned_kind(&self.client, gvk)
            .await
            .with_context(|| format!("the API server does not serve {}/{}", gvk.api_version(), gvk.kind))?;
        Ok(self.resource(&resource, &capabilities.scope, namespace))
    }

    /// Objects of a discovered kind.
    #[must_use]
    pub fn resource(&self, resource: &ApiResource, scope: &Scope, namespace: &str) -> Api<DynamicObject> {
        match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, resource),
        }
    }

    /// WorkloadIdentities of a namespace.
    ///
    /// # Errors
    /// Their definition is not installed.
    pub async fn workload_identities(&self, namespace: &str) -> Result<Api<DynamicObject>> {
        self.kind(&ours("WorkloadIdentity"), namespace).await
    }

    /// The cluster's TrustDomains.
    ///
    /// # Errors
    /// Their definition is not installed.
    pub async fn trust_domains(&self) -> Result<Api<DynamicObject>> {
        self.kind(&ours("TrustDomain"), "").await
    }

    /// The uid of the namespace kube-system, which identifies the cluster.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn uid(&self) -> Result<String> {
        let system = Api::<Namespace>::all(self.client.clone()).get("kube-system").await.context("get kube-system")?;
        system.metadata.uid.context("kube-system has no uid")
    }

    /// The operator's published settings.
    ///
    /// # Errors
    /// The operator has not published them, or the API server does not answer.
    pub async fn control_plane(&self) -> Result<ControlPlane> {
        let map = self
            .api::<ConfigMap>(SYSTEM)
            .get(control_plane::CONFIG_MAP)
            .await
            .context("get the control plane's ConfigMap")?;
        let data = map.data.unwrap_or_default();
        let value =
            |key: &str| data.get(key).cloned().with_context(|| format!("the control plane's ConfigMap has no {key}"));
        Ok(ControlPlane {
            roots: value(control_plane::ROOTS)?,
            issuer: value(control_plane::ISSUER)?,
            issuer_name: value(control_plane::ISSUER_NAME)?,
            audience: value(control_plane::AUDIENCE)?,
        })
    }
}

/// Watches may be silent for minutes.
fn without_read_timeout(mut config: Config) -> Config {
    config.read_timeout = None;
    config.connect_timeout = Some(Duration::from_secs(10));
    config
}

/// The operator's published settings: ConfigMap `countersign-control-plane`.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// The roots of the issuer's certificate, PEM.
    pub roots: String,
    /// The issuer's address, `host:port`.
    pub issuer: String,
    /// The issuer's TLS name.
    pub issuer_name: String,
    /// The audience of tokens for this installation.
    pub audience: String,
}

/// A kind of `countersign.dev`.
#[must_use]
pub fn ours(kind: &str) -> GroupVersionKind {
    GroupVersionKind::gvk(API_GROUP, API_VERSION, kind)
}
