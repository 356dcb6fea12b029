//! The bundle endpoint of a cluster: installs it with a web certificate of the tests' own authority, and says where it is.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use countersign_contract::objects::{ENDPOINT, ENDPOINT_NAMESPACE, OPERATOR};
use k8s_openapi::{
    ByteString,
    api::{apps::v1::Deployment, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::api::PostParams;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{
    Cluster, World,
    cluster::SYSTEM,
    wait::{DEFAULT_TIMEOUT, until},
};

/// The Secret of the web certificate; the tests keep their authority's certificate in it too.
pub const WEB_SECRET: &str = "countersign-endpoint-web";

/// The port of every node for `https_spiffe`, from `manifests/federated`.
pub const SPIFFE_PORT: u16 = 30443;
/// As [`SPIFFE_PORT`], for `https_web`.
pub const WEB_PORT: u16 = 30444;
/// The web certificate is also for Services of this namespace, by their DNS names.
pub const WEB_NAMESPACE: &str = "default";

impl World {
    /// Installs `manifests/federated` on the cluster of this kubeconfig, which is the world's, unless it is there.
    ///
    /// # Errors
    /// It is not rolled out in time.
    pub async fn install_endpoint(&self, kubeconfig: &str) -> Result<()> {
        self.make_web_certificate().await?;
        apply(kubeconfig, "federated")?;
        rolled_out(&self.cluster, SYSTEM, OPERATOR).await?;
        apply(kubeconfig, "federated/endpoint")
    }

    /// Waits until the bundle endpoint serves. It does once this cluster is the authority of a trust domain.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn endpoint_serves(&self) -> Result<()> {
        rolled_out(&self.cluster, ENDPOINT_NAMESPACE, ENDPOINT).await
    }

    /// Where the bundle of the test's trust domain is, by the profile `https_spiffe`.
    ///
    /// # Errors
    /// The cluster has no node.
    pub async fn spiffe_url(&self) -> Result<String> {
        Ok(format!("https://{}:{SPIFFE_PORT}/{}", self.node_address().await?, self.trust_domain))
    }

    /// As [`Self::spiffe_url`], by the profile `https_web`; and the issuer of its JWT-SVIDs, where it has this one.
    ///
    /// # Errors
    /// The cluster has no node.
    pub async fn web_url(&self) -> Result<String> {
        Ok(format!("https://{}:{WEB_PORT}/{}", self.node_address().await?, self.trust_domain))
    }

    /// The SPIFFE ID of the endpoint, if the test's trust domain is the oldest of the cluster.
    #[must_use]
    pub fn endpoint_id(&self) -> String {
        format!("spiffe://{}/countersign/endpoint", self.trust_domain)
    }

    /// The endpoint of the test's trust domain by the profile `https_spiffe`, as the content of a YAML flow mapping.
    ///
    /// # Errors
    /// The cluster has no node.
    pub async fn spiffe_endpoint(&self) -> Result<String> {
        Ok(format!("url: '{}', profile: https_spiffe, spiffeID: '{}'", self.spiffe_url().await?, self.endpoint_id()))
    }

    /// As [`Self::spiffe_endpoint`], by the profile `https_web`.
    ///
    /// # Errors
    /// The cluster has no node, or no web certificate.
    pub async fn web_endpoint(&self) -> Result<String> {
        let ca = serde_json::json!(self.web_authority().await?);
        Ok(format!("url: '{}', profile: https_web, caBundle: {ca}", self.web_url().await?))
    }

    /// The certificate of the authority that signed the cluster's web certificate, PEM.
    ///
    /// # Errors
    /// There is none.
    pub async fn web_authority(&self) -> Result<String> {
        let secret = self.cluster.api::<Secret>(ENDPOINT_NAMESPACE).get(WEB_SECRET).await?;
        let pem = secret.data.and_then(|mut data| data.remove("ca.crt")).context("no ca.crt")?;
        Ok(String::from_utf8(pem.0)?)
    }

    /// Makes a web certificate for the node's address and the Services of [`WEB_NAMESPACE`], unless there is one.
    async fn make_web_certificate(&self) -> Result<()> {
        let secrets = self.cluster.api::<Secret>(ENDPOINT_NAMESPACE);
        if secrets.get_opt(WEB_SECRET).await?.is_some() {
            return Ok(());
        }
        let names = [self.node_address().await?, format!("*.{WEB_NAMESPACE}.svc.cluster.local")];
        let (secret, _) = web_certificate(WEB_SECRET, &names)?;
        secrets.create(&PostParams::default(), &secret).await.context("create the web certificate's Secret").map(drop)
    }

    /// Makes a web certificate for the node's address, of an authority of its own, in a Secret of this name: `tls.crt` and
    /// `tls.key`. Returns the authority's certificate, PEM, which is `ca.crt`.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create_web_certificate(&self, namespace: &str, name: &str) -> Result<String> {
        let (secret, authority) = web_certificate(name, &[self.node_address().await?])?;
        let secrets = self.cluster.api::<Secret>(namespace);
        secrets.create(&PostParams::default(), &secret).await.context("create the web certificate's Secret")?;
        Ok(authority)
    }
}

/// Applies a folder below `manifests`.
fn apply(kubeconfig: &str, manifests: &str) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(manifests);
    let mut apply = Command::new("kubectl");
    apply.env("KUBECONFIG", kubeconfig).args(["apply", "--server-side", "--force-conflicts", "--kustomize"]);
    let output = apply.arg(folder).output().context("run kubectl")?;
    ensure!(output.status.success(), "kubectl apply {manifests}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A Secret with a new certificate for these addresses and DNS names and its key, and the certificate of the authority that signed it, PEM, which is
/// in the Secret too.
pub(crate) fn web_certificate(name: &str, hosts: &[String]) -> Result<(Secret, String)> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "web authority of the tests");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(hosts)?;
    // From Python 3.13 on it is required.
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &authority)?;
    let data = [("tls.crt", leaf.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", authority.pem())];
    let data = data.map(|(name, pem)| (name.to_owned(), ByteString(pem.into_bytes())));
    let secret = Secret {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(BTreeMap::from(data)),
        ..Secret::default()
    };
    Ok((secret, authority.pem()))
}

async fn rolled_out(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    until(&format!("{name} is rolled out"), DEFAULT_TIMEOUT, async || {
        let deployment = cluster.api::<Deployment>(namespace).get(name).await?;
        let wanted = deployment.spec.replicas.unwrap_or(1);
        let status = deployment.status.unwrap_or_default();
        let is_seen = status.observed_generation == deployment.metadata.generation;
        let all = [status.replicas, status.updated_replicas, status.available_replicas];
        Ok((is_seen && all.iter().all(|count| *count == Some(wanted))).then_some(()))
    })
    .await
}
