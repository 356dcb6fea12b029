//! Service account tokens bound to pods, as the kubelet projects them, from the API server's TokenRequest.

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, ResourceExt as _, api::PostParams};

use crate::{cluster::Cluster, dataset::PodName, figures::Progress};

/// Longer than any run, because these agents' token files are not replaced. The operator is started with a matching limit.
const LIFE: i64 = 12 * 3600;

/// A pod with its token.
#[derive(Clone)]
pub(crate) struct Proven {
    pub(crate) pod: PodName,
    pub(crate) token: String,
}

impl std::fmt::Debug for Proven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proven").field("pod", &self.pod).finish_non_exhaustive()
    }
}

/// Requests a token for each pod, in the order of the pods.
pub(crate) async fn tokens(
    cluster: &Cluster,
    audience: &str,
    pods: Vec<PodName>,
    parallel: usize,
) -> Result<Vec<Proven>> {
    let mut progress = Progress::new("tokens", pods.len());
    let requests = stream::iter(pods).map(|pod| token(cluster, audience, pod)).buffered(parallel);
    let mut requests = std::pin::pin!(requests);
    let mut proven = Vec::new();
    while let Some(one) = requests.try_next().await? {
        proven.push(one);
        progress.at(proven.len());
    }
    progress.done(proven.len());
    Ok(proven)
}

async fn token(cluster: &Cluster, audience: &str, pod: PodName) -> Result<Proven> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace);
    let uid = pods.get_metadata(&pod.name).await.with_context(|| format!("reading pod {}", pod.name))?.uid();
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name.clone()),
        uid,
    };
    let spec = TokenRequestSpec {
        audiences: Some(vec![audience.to_owned()]),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(LIFE),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), &pod.namespace);
    let made = accounts.create_token_request(&pod.account, &PostParams::default(), &request).await;
    let made = made.with_context(|| format!("requesting a token for pod {}", pod.name))?;
    let token = made.status.map(|status| status.token).context("the API server made no token")?;
    Ok(Proven { pod, token: token.unwrap_or_default() })
}
