//! The API types of `countersign.dev/v1alpha1`, from which the custom resource definitions are generated. They say what
//! an object may look like, by schema and by CEL; what it means is decided in `countersign-core`.
//!
//! To add a field: the struct of its resource here, `cargo xtask codegen`, then whoever reads it.

mod lifetime;
mod remote;
mod schema;
mod selector;
mod trust_domain;
mod workload_identity;

pub use lifetime::{Lifetime, LifetimeError};
pub use remote::{Bootstrap, BundleEndpoint, BundleOrigin, EndpointProfile, PollError, Remote, RemoteStatus};
pub use schema::{SchemaError, all, forbid_null};
pub use selector::{LabelRequirement, NamespaceSelector, Operator, PodSelector};
pub use trust_domain::{
    Authority, AuthorityKind, AuthorityState, AuthorityStatus, BundleStatus, Grant, JwtAuthority, KeyType,
    RemovedAuthority, Rotation, Taint, TrustDomain, TrustDomainSpec, TrustDomainStatus, WitAuthority, X509Authority,
};
pub use workload_identity::{
    AgentVersion, ClaimKind, ClaimRecord, JwtClaims, PodCounts, Undelivered, WitClaims, WorkloadIdentity,
    WorkloadIdentitySpec, WorkloadIdentityStatus, X509Claims,
};

/// The types of the conditions in every status, as kstatus reads them: `Ready` is true when all is well,
/// `Reconciling` and `Stalled` only when something is going on or wrong.
pub mod condition {
    /// The object does what its spec says.
    pub const READY: &str = "Ready";
    /// The controller is working towards the spec.
    pub const RECONCILING: &str = "Reconciling";
    /// The controller cannot go on without a person.
    pub const STALLED: &str = "Stalled";
    /// The counts of pods and agents include every replica of the operator.
    pub const STATS_COMPLETE: &str = "StatsComplete";
    /// Grants of a TrustDomain that are not shared keep namespaces apart.
    pub const NAMESPACES_SEPARATED: &str = "NamespacesSeparated";
    /// Whatever was prepared before the time in `authority.rotation.after` signs no longer.
    pub const ROTATION_COMPLETE: &str = "RotationComplete";
    /// Every workload that is expected to has acknowledged the bundle as it is now.
    pub const BUNDLE_ACKNOWLEDGED: &str = "BundleAcknowledged";
    /// No agent claims to have a newer bundle than the one that is published.
    pub const BUNDLE_SEQUENCE_CONSISTENT: &str = "BundleSequenceConsistent";
    /// Every name in `authority.tainted` and `authority.revoked` is that of an authority, or was.
    pub const REQUESTED_AUTHORITIES_KNOWN: &str = "RequestedAuthoritiesKnown";
    /// The credentials of every pod of a WorkloadIdentity are where they can be renewed.
    pub const CREDENTIALS_REFRESHABLE: &str = "CredentialsRefreshable";
    /// A WorkloadIdentity gets the bundle of every foreign trust domain that it names.
    pub const FEDERATED: &str = "Federated";
    /// A WorkloadIdentity gets the WIT-SVIDs that it asks for.
    pub const WIT_AVAILABLE: &str = "WITAvailable";
    /// No WorkloadIdentity that names a remote trust domain lacks a consent to its bundle.
    pub const CONSENTS_COMPLETE: &str = "ConsentsComplete";
    /// The issuer of a trust domain's JWT-SVIDs is an issuer, and that of no other trust domain.
    pub const JWT_ISSUER_USABLE: &str = "JWTIssuerUsable";
    /// Another trust domain has one of the anchors of a remote trust domain, so that each can forge the other's ids.
    pub const SHARED_ANCHOR: &str = "SharedAnchor";
    /// Others hold some of what a WorkloadIdentity claims.
    pub const CONFLICTING: &str = "Conflicting";
}
