//! Objects of an installation: their names, types and keys.

/// The namespace of operator, webhook and the controller of the webhook's CA, unless the installer chooses another.
pub const SYSTEM_NAMESPACE: &str = "countersign-system";
/// The namespace of the authorities' journals, which holds nothing else.
pub const AUTHORITIES_NAMESPACE: &str = "countersign-authorities";
/// The namespace of what is kept of remote trust domains, which holds nothing else.
pub const FEDERATION_NAMESPACE: &str = "countersign-federation";
/// The namespace of the bundle endpoint. It is one of workloads, not of the system: the endpoint has an agent.
pub const ENDPOINT_NAMESPACE: &str = ENDPOINT;

/// The operator: its Deployment, ServiceAccount and Lease, its label [`NAME`](crate::metadata::label::NAME), and the field
/// manager of what it writes.
pub const OPERATOR: &str = "countersign-operator";
/// The webhook: its Deployment, ServiceAccount and Service.
pub const WEBHOOK: &str = "countersign-webhook";
/// The controller of the webhook's CA: its Deployment and ServiceAccount.
pub const WEBHOOK_CA: &str = "countersign-webhook-ca";
/// The bundle endpoint: its Deployment, ServiceAccount and Service.
pub const ENDPOINT: &str = "countersign-endpoint";

/// The Lease whose holder is the leader of the operator's replicas.
pub const LEASE: &str = OPERATOR;
/// The Service of the Issuer API.
pub const ISSUER_SERVICE: &str = "countersign-issuer";
/// The MutatingWebhookConfiguration and the ValidatingWebhookConfiguration.
pub const WEBHOOK_CONFIGURATION: &str = "countersign";

/// The ConfigMap in which the operator publishes what agents need to find and authenticate the issuer.
pub mod control_plane {
    /// Its name.
    pub const CONFIG_MAP: &str = "countersign-control-plane";
    /// The key of the control plane's roots, current and next, PEM.
    pub const ROOTS: &str = "roots.pem";
    /// The key of the issuer's address, `host:port`.
    pub const ISSUER: &str = "issuer";
    /// The key of the name in the issuer's certificate.
    pub const ISSUER_NAME: &str = "issuer-name";
    /// The key of the audience of agents' tokens.
    pub const AUDIENCE: &str = "audience";
    /// The key of the value of `{cluster}` in paths; absent where the operator has none.
    pub const CLUSTER_NAME: &str = "cluster-name";
}

/// Secrets with journals, in the namespace of the authorities.
pub mod journal {
    /// Their type.
    pub const SECRET_TYPE: &str = "countersign.dev/journal";
    /// The key of the journal.
    pub const KEY: &str = "journal";
    /// The Secret of the control plane's roots.
    pub const CONTROL_PLANE_SECRET: &str = "control-plane";
    /// What the name of a trust domain's Secret begins with; the name of its TrustDomain follows.
    pub const TRUST_DOMAIN_PREFIX: &str = "trust-domain.";

    /// The Secret of a TrustDomain's authorities.
    #[must_use]
    pub fn trust_domain_secret(domain: &str) -> String {
        format!("{TRUST_DOMAIN_PREFIX}{domain}")
    }
}

/// ConfigMaps with what is kept of remote trust domains.
pub mod remote_bundle {
    /// The label of each.
    pub const LABEL: &str = "countersign.dev/remote-bundle";
    /// The value of [`LABEL`].
    pub const LABEL_VALUE: &str = "true";
    /// The key of what is kept.
    pub const KEY: &str = "remote-bundle.json";
    /// What their names begin with; the name of the TrustDomain follows.
    pub const PREFIX: &str = "remote.";

    /// The ConfigMap of a TrustDomain.
    #[must_use]
    pub fn config_map(domain: &str) -> String {
        format!("{PREFIX}{domain}")
    }
}

/// ConfigMaps with the bundle documents of this cluster's trust domains, for people and pipelines that configure them
/// in other clusters. They are in the namespace of what is kept of remote trust domains.
pub mod own_bundle {
    /// The label of each.
    pub const LABEL: &str = "countersign.dev/bundle";
    /// The value of [`LABEL`].
    pub const LABEL_VALUE: &str = "true";
    /// The key of the document.
    pub const KEY: &str = "bundle.json";
    /// What their names begin with; the name of the TrustDomain follows.
    pub const PREFIX: &str = "bundle.";

    /// The ConfigMap of a TrustDomain.
    #[must_use]
    pub fn config_map(domain: &str) -> String {
        format!("{PREFIX}{domain}")
    }
}

/// ClusterTrustBundles with the X.509 anchors of this cluster's trust domains.
pub mod cluster_trust_bundle {
    /// Their signer.
    pub const SIGNER: &str = "countersign.dev/trust-domain";
    /// What their names begin with, as the API demands for [`SIGNER`]; the name of the TrustDomain follows.
    pub const PREFIX: &str = "countersign.dev:trust-domain:";

    /// The ClusterTrustBundle of a TrustDomain.
    #[must_use]
    pub fn object_name(domain: &str) -> String {
        format!("{PREFIX}{domain}")
    }
}

/// Secrets of the webhook, in its namespace.
pub mod webhook_secret {
    /// The webhook's CA.
    pub const CA: &str = "countersign-webhook-ca";
    /// The type of [`CA`].
    pub const CA_TYPE: &str = "countersign.dev/webhook-ca";
    /// The serving certificate.
    pub const SERVING: &str = "countersign-webhook-tls";
}
