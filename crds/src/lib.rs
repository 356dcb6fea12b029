//! The API types of `countersign.dev/v1alpha1`, from which the custom resource definitions are generated. They say what
//! an object may look like, by schema and by CEL; what it means is decided in `countersign-core`.
//!
//! To add a field: the struct of its resource here, `cargo xtask codegen`, then whoever reads it.

mod lifetime;
mod schema;
mod selector;
mod trust_domain;
mod workload_identity;

pub use lifetime::{Lifetime, LifetimeError};
pub use schema::{SchemaError, all};
pub use selector::{LabelRequirement, NamespaceSelector, Operator, PodSelector};
pub use trust_domain::{
    Authority, AuthorityKind, AuthorityState, AuthorityStatus, BundleStatus, Grant, JwtAuthority, KeyType, TrustDomain,
    TrustDomainSpec, TrustDomainStatus, X509Authority,
};
pub use workload_identity::{
    ClaimKind, ClaimRecord, JwtClaims, PodCounts, WorkloadIdentity, WorkloadIdentitySpec, WorkloadIdentityStatus,
    X509Claims,
};

/// The group of the API.
pub const GROUP: &str = "countersign.dev";

/// The annotations that the webhook leaves on pods, for whoever reads them: a pod's creator may write anything there.
pub mod annotation {
    /// On pods that were injected: how.
    pub const INJECTED: &str = "countersign.dev/injected";
    /// On pods of which a container has a part of its identity mounted by `subPath`, which never refreshes: the names of these
    /// containers, separated by commas.
    pub const NEVER_REFRESHES: &str = "countersign.dev/never-refreshes";
}

/// The types of the conditions in every status, as kstatus reads them: `Ready` is true when all is well,
/// `Reconciling` and `Stalled` only when something is going on or wrong.
pub mod condition {
    /// The object does what its spec says.
    pub const READY: &str = "Ready";
    /// The controller is working towards the spec.
    pub const RECONCILING: &str = "Reconciling";
    /// The controller cannot go on without a person.
    pub const STALLED: &str = "Stalled";
    /// What lives in streams was asked of every replica.
    pub const COUNTED: &str = "Counted";
    /// Grants of a TrustDomain that are not shared keep namespaces apart.
    pub const NAMESPACES_SEPARATED: &str = "NamespacesSeparated";
    /// What every pod has of a WorkloadIdentity is renewed in time.
    pub const REFRESHING: &str = "Refreshing";
    /// Others hold some of what a WorkloadIdentity claims.
    pub const CONFLICTING: &str = "Conflicting";
}
