//! Raw requests to the API server, so that responses that are only counted are not decoded.

use anyhow::{Context as _, Result};
use countersign_contract::{API_GROUP, API_VERSION};
use kube::{Client, Config, api::PostParams, core::Request};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

/// The result of creating an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    Now,
    Before,
}

/// A client of the API server.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) config: Config,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("url", &self.config.cluster_url).finish_non_exhaustive()
    }
}

/// A collection of objects: its path below the API server.
#[derive(Clone, Debug)]
pub(crate) struct Collection(pub(crate) String);

impl Collection {
    pub(crate) fn core(namespace: Option<&str>, plural: &str) -> Self {
        Self(match namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/{plural}"),
            None => format!("/api/v1/{plural}"),
        })
    }

    pub(crate) fn ours(namespace: Option<&str>, plural: &str) -> Self {
        let base = format!("/apis/{API_GROUP}/{API_VERSION}");
        Self(match namespace {
            Some(namespace) => format!("{base}/namespaces/{namespace}/{plural}"),
            None => format!("{base}/{plural}"),
        })
    }
}

#[derive(Deserialize)]
struct Listed {
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    remaining_item_count: Option<usize>,
}

impl Cluster {
    pub(crate) async fn connect() -> Result<Self> {
        let config = Config::infer().await.context("KUBECONFIG names no cluster")?;
        Ok(Self { client: Client::try_from(config.clone())?, config })
    }

    pub(crate) async fn create(&self, collection: &Collection, object: &Value) -> Result<Created> {
        let body = serde_json::to_vec(object)?;
        let request = Request::new(collection.0.as_str()).create(&PostParams::default(), body)?;
        match self.client.request::<IgnoredAny>(request).await {
            Ok(_) => Ok(Created::Now),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Created::Before),
            Err(error) => Err(error).with_context(|| format!("creating in {}", collection.0)),
        }
    }

    /// The number of objects in a collection.
    pub(crate) async fn count(&self, collection: &Collection) -> Result<usize> {
        let parameters = kube::api::ListParams::default().limit(1);
        let request = Request::new(collection.0.as_str()).list(&parameters)?;
        let listed: Listed =
            self.client.request(request).await.with_context(|| format!("counting {}", collection.0))?;
        Ok(listed.items.len() + listed.metadata.remaining_item_count.unwrap_or_default())
    }
}
