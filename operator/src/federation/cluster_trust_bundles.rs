//! The X.509 anchors of this cluster's trust domains as ClusterTrustBundles, which pods can mount without an agent. Kubernetes
//! serves that kind from 1.37 on, and before that where it is enabled.

use countersign_contract::objects::{
    OPERATOR,
    cluster_trust_bundle::{SIGNER, object_name},
};
use countersign_crds::TrustDomain;
use kube::{
    Api, Client, Resource as _,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::json;
use tokio::sync::OnceCell;

/// The versions in which the API may be served, the newest first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// The ClusterTrustBundles of this installation.
pub struct ClusterTrustBundles {
    client: Client,
    /// How the API is served; none if it is not.
    served: OnceCell<Option<ApiResource>>,
}

impl ClusterTrustBundles {
    /// Those of the cluster of this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, served: OnceCell::new() }
    }

    /// Publishes the anchors of a TrustDomain of that uid, PEM; without any, the object is deleted, since an empty one is not
    /// allowed. Where the API is not served, nothing happens.
    ///
    /// # Errors
    /// When the API server does not do it.
    pub async fn publish(&self, domain: &str, uid: &str, anchors: &str) -> kube::Result<()> {
        let Some(resource) = self.served.get_or_try_init(|| self.discover()).await? else { return Ok(()) };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let name = object_name(domain);
        if anchors.is_empty() {
            return match api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                deleted => deleted.map(drop),
            };
        }
        let object = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {
                "name": name,
                "ownerReferences": [{
                    "apiVersion": TrustDomain::api_version(&()), "kind": TrustDomain::kind(&()), "name": domain, "uid": uid,
                }],
            },
            "spec": { "signerName": SIGNER, "trustBundle": anchors },
        });
        api.patch(&name, &PatchParams::apply(OPERATOR).force(), &Patch::Apply(object)).await.map(drop)
    }

    async fn discover(&self) -> kube::Result<Option<ApiResource>> {
        for version in VERSIONS {
            let group = format!("certificates.k8s.io/{version}");
            let resources = match self.client.list_api_group_resources(&group).await {
                Ok(list) => list.resources,
                Err(kube::Error::Api(status)) if status.code == 404 => continue,
                Err(error) => return Err(error),
            };
            if resources.iter().any(|one| one.name == "clustertrustbundles") {
                let gvk = GroupVersionKind::gvk("certificates.k8s.io", version, "ClusterTrustBundle");
                return Ok(Some(ApiResource::from_gvk_with_plural(&gvk, "clustertrustbundles")));
            }
        }
        Ok(None)
    }
}

impl std::fmt::Debug for ClusterTrustBundles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterTrustBundles")
    }
}
