//! A bundle endpoint that lies: a pod of `countersign-demo hostile-endpoint`, behind a Service of the test's namespace.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::{
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
    core::ObjectList,
};
use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    World,
    endpoint::web_certificate,
    fixture::PodSpec,
    pods::is_event,
    wait::{DEFAULT_TIMEOUT, until},
};

/// A word that is in everything it answers.
pub const MARKER: &str = "HOSTILE-MARKER-7f3a";

/// Its pod, Service and Secret.
const NAME: &str = "hostile";
/// The label of the TrustDomains that belong to a test; the value is its namespace.
const LABEL: &str = "e2e.countersign.dev/test";

/// Where it is, and how it is verified.
#[derive(Clone, Debug)]
pub struct HostileEndpoint {
    address: String,
    authority: String,
}

impl HostileEndpoint {
    /// The endpoint of a trust domain at one of its paths, as the content of a YAML flow mapping.
    #[must_use]
    pub fn at(&self, path: &str, trust_domain: &str) -> String {
        format!("{}, caBundle: {}", self.unverified(path, trust_domain), json!(self.authority))
    }

    /// As [`Self::at`], without the authority that verifies it.
    #[must_use]
    pub fn unverified(&self, path: &str, trust_domain: &str) -> String {
        format!("url: 'https://{}{path}?trust-domain={trust_domain}', profile: https_web", self.address)
    }
}

impl World {
    /// Starts it, and waits until it serves at an address that the operator may call.
    ///
    /// # Errors
    /// It does not serve in time.
    pub async fn hostile_endpoint(&self) -> Result<HostileEndpoint> {
        let namespace = &self.namespace;
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {NAME}, namespace: {namespace}}}\n\
             spec: {{selector: {{app: {NAME}}}, ports: [{{port: 443, targetPort: 8443}}]}}\n"
        );
        self.cluster.apply(&service).await?;
        let service = self.cluster.api::<Service>(namespace).get(NAME).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
        let (secret, authority) = web_certificate(NAME, std::slice::from_ref(&address))?;
        self.cluster.api::<Secret>(namespace).create(&PostParams::default(), &secret).await?;
        let (certificate, key) = ("/tls/tls.crt", "/tls/tls.key");
        let args = ["hostile-endpoint", "--listen", "0.0.0.0:8443", "--certificate", certificate, "--key", key];
        let pod = PodSpec {
            labels: "countersign.dev/inject: 'false'",
            container: "volumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]",
            more: "volumes: [{name: tls, secret: {secretName: hostile}}]",
            ..PodSpec::demo(NAME, &[args.as_slice(), &["--marker", MARKER]].concat())
        };
        self.cluster.apply(&pod.pod(namespace)).await?;
        self.ready(NAME).await?;
        until("the hostile endpoint listens", DEFAULT_TIMEOUT, async || {
            let connecting = TcpStream::connect((address.as_str(), 443));
            tokio::time::timeout(Duration::from_secs(1), connecting).await??;
            Ok(Some(()))
        })
        .await?;
        Ok(HostileEndpoint { address, authority })
    }

    /// How often each path of the hostile endpoint was asked for.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub async fn asked_of_hostile_endpoint(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for line in self.app_output(NAME).await?.iter().filter(|line| is_event(line, "asked")) {
            *counts.entry(line["path"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        Ok(counts)
    }

    /// A TrustDomain for a remote trust domain of this name, which this test's namespace may trust. It is among
    /// [`Self::remotes`].
    #[must_use]
    pub fn remote_at(&self, trust_domain: &str, endpoint: &str) -> String {
        format!(
            "---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {{name: {trust_domain}, labels: {{{LABEL}: {namespace}}}}}
spec:
  remote: {{namespaces: {{matchNames: [{namespace}]}}, endpoint: {{{endpoint}}}}}
",
            namespace = self.namespace
        )
    }

    /// The TrustDomains of [`Self::remote_at`].
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn remotes(&self) -> Result<ObjectList<DynamicObject>> {
        Ok(self.cluster.trust_domains().await?.list(&self.selected()).await?)
    }

    /// Deletes the TrustDomains of [`Self::remote_at`].
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete_remotes(&self) -> Result<()> {
        let domains = self.cluster.trust_domains().await?;
        domains.delete_collection(&DeleteParams::background(), &self.selected()).await.map(drop)?;
        Ok(())
    }

    /// What selects the TrustDomains of [`Self::remote_at`].
    #[must_use]
    pub fn selected(&self) -> ListParams {
        ListParams::default().labels(&format!("{LABEL}={}", self.namespace))
    }
}
