//! Labels and annotations.

/// What every key of ours begins with.
pub const PREFIX: &str = "countersign.dev/";

/// Labels.
pub mod label {
    /// On pods and namespaces: requests injection. The pod's label overrides the namespace's.
    pub const INJECT: &str = "countersign.dev/inject";
    /// On namespaces: may scrape metrics, with the component `network-policy`.
    pub const MONITORING: &str = "countersign.dev/monitoring";
    /// On the pods of a component: its name (a recommended label of Kubernetes).
    pub const NAME: &str = "app.kubernetes.io/name";
}

/// Annotations. A pod's creator may write anything there.
pub mod annotation {
    /// On pods: `"true"` gives each container its own session and identity.
    pub const PER_CONTAINER: &str = "countersign.dev/per-container";
    /// On pods: the containers that see the credentials, separated by commas.
    pub const CONTAINERS: &str = "countersign.dev/containers";
    /// On pods: `"false"` lets the application start before it has its identity.
    pub const HOLD: &str = "countersign.dev/hold";
    /// On pods: `"true"` writes bundle documents and issuer URLs beside the credentials, for the bundle endpoint.
    pub const BUNDLE_DOCUMENTS: &str = "countersign.dev/bundle-documents";
    /// On pods that were injected: how.
    pub const INJECTED: &str = "countersign.dev/injected";
    /// On pods whose containers mount a part of their identity by `subPath`, where it goes stale: the names of these
    /// containers, separated by commas.
    pub const STALE_MOUNTS: &str = "countersign.dev/stale-mounts";
    /// The name of [`STALE_MOUNTS`] in release 0.1. It is still read, for pods that were injected before an upgrade, and no
    /// longer written; remove it in the next release.
    pub const LEGACY_STALE_MOUNTS: &str = "countersign.dev/never-refreshes";
    /// On pods: a time, RFC 3339. Whenever it moves on, the agent renews all credentials of the pod once.
    pub const RENEW_AFTER: &str = "countersign.dev/renew-after";
    /// On a TrustDomain: takes over a journal that another object of its name left behind. The value is the uid of that
    /// object, so that no other journal is taken over.
    pub const ADOPT_AUTHORITIES: &str = "countersign.dev/adopt-authorities";
    /// On a journal's Secret: the uid of the TrustDomain that it was made for.
    pub const TRUST_DOMAIN_UID: &str = "countersign.dev/trust-domain-uid";
}
