//! Installs only what the operator needs: definitions, namespaces, role and Service, and a kubeconfig with a token of its
//! own account, so that it runs here with the permissions that it has in a cluster.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use countersign_contract::{
    network::port,
    objects::{AUTHORITIES_NAMESPACE as AUTHORITIES, FEDERATION_NAMESPACE as FEDERATION, ISSUER_SERVICE, OPERATOR},
};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    discovery,
};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Collection},
    figures::say,
};

pub(crate) use countersign_contract::objects::SYSTEM_NAMESPACE as SYSTEM;

/// Longer than any run.
const TOKEN_LIFE: i64 = 24 * 3600;

/// Installs; returns the operator's kubeconfig, written to `dir`.
pub(crate) async fn install(cluster: &Cluster, rbac: &Path, dir: &Path) -> Result<PathBuf> {
    for (name, definition) in countersign_crds::all()? {
        apply(cluster, serde_saphyr::from_str(&definition).context(name)?).await?;
    }
    served(cluster).await?;
    for namespace in [SYSTEM, AUTHORITIES, FEDERATION] {
        apply(cluster, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
    }
    let text = std::fs::read_to_string(rbac).with_context(|| format!("reading {}", rbac.display()))?;
    for document in serde_saphyr::from_multiple::<Value>(&text).context("the operator's role")? {
        if !document.is_null() {
            apply(cluster, document).await?;
        }
    }
    apply(cluster, service()).await?;
    say("definitions, namespaces, role and Service are in place");
    kubeconfig(cluster, dir).await
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": ISSUER_SERVICE, "namespace": SYSTEM},
           "spec": {"ports": [{"name": "issuer", "port": port::ISSUER}]}})
}

/// Waits until the API server serves the custom resources, which takes a while after their definitions are created.
async fn served(cluster: &Cluster) -> Result<()> {
    let begun = Instant::now();
    for plural in ["trustdomains", "workloadidentities"] {
        while let Err(error) = cluster.count(&Collection::ours(None, plural)).await {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// Server-side apply of any object; the API server resolves its kind.
pub(crate) async fn apply(cluster: &Cluster, object: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().context("an object has a kind")?;
    let kind = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = discovery::pinned_kind(&cluster.client, &kind).await?;
    let name = object.metadata.name.clone().context("an object has a name")?;
    let api: Api<DynamicObject> = match (&object.metadata.namespace, capabilities.scope) {
        (Some(namespace), discovery::Scope::Namespaced) => {
            Api::namespaced_with(cluster.client.clone(), namespace, &resource)
        }
        _ => Api::all_with(cluster.client.clone(), &resource),
    };
    let parameters = PatchParams::apply("countersign-load").force();
    api.patch(&name, &parameters, &Patch::Apply(object)).await.with_context(|| format!("applying {name}"))?;
    Ok(())
}

async fn kubeconfig(cluster: &Cluster, dir: &Path) -> Result<PathBuf> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), SYSTEM);
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_LIFE), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let made = accounts.create_token_request(OPERATOR, &PostParams::default(), &request).await?;
    let Some(status) = made.status else { bail!("the API server made no token for {OPERATOR}") };
    let ca = cluster.config.root_cert.as_deref().unwrap_or_default();
    let ca: String = ca.iter().map(|der| pem(der)).collect();
    let (ca_file, file) = (dir.join("ca.crt"), dir.join("operator.kubeconfig"));
    std::fs::write(&ca_file, ca)?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "load",
        "clusters": [{"name": "load", "cluster": {
            "server": cluster.config.cluster_url.to_string(), "certificate-authority": ca_file,
        }}],
        "users": [{"name": "operator", "user": {"token": status.token}}],
        "contexts": [{"name": "load", "context": {"cluster": "load", "user": "operator"}}],
    });
    std::fs::write(&file, config.to_string()).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

fn pem(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", der))
}
