//! The API server as the source of what the issuer asks for: its token keys, and pods that the index does not know yet.

use countersign_index::PodRecord;
use countersign_issuer::{
    pod_lookup::PodSource,
    token_keys::{FetchError, JWKS, KeySource, PublishedKeys},
};
use futures::future::BoxFuture;
use kube::{Api, Client};
use serde::Deserialize;

use crate::watch::pods::PodLite;

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The API server as the source of its own keys.
pub struct ApiServer(pub Client);

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

impl KeySource for ApiServer {
    fn fetch(&self) -> BoxFuture<'_, Result<PublishedKeys, FetchError>> {
        Box::pin(async move {
            let discovery = self.read(DISCOVERY).await?;
            let discovery: Discovery = serde_json::from_str(&discovery)
                .map_err(|error| FetchError::Malformed { path: DISCOVERY, reason: error.to_string() })?;
            let jwks = self.read(JWKS).await?.into_bytes();
            Ok(PublishedKeys { issuer: discovery.issuer, jwks })
        })
    }
}

impl ApiServer {
    async fn read(&self, path: &'static str) -> Result<String, FetchError> {
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(|error| FetchError::Malformed { path, reason: error.to_string() })?;
        let unreadable = |source| FetchError::Unreadable { path, source: Box::new(source) };
        self.0.request_text(request).await.map_err(unreadable)
    }
}

/// The API server as the source of pods.
pub struct ApiServerPods(pub Client);

impl PodSource for ApiServerPods {
    fn read<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<PodRecord>, String>> {
        Box::pin(async move {
            let pods: Api<PodLite> = Api::namespaced(self.0.clone(), namespace);
            let pod = pods.get_opt(name).await.map_err(|error| error.to_string())?;
            Ok(pod.map(PodRecord::from))
        })
    }
}
