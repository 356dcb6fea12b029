//! What follows from a TrustDomain, and the state of its authorities.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function body")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Lifetime, RemoteStatus};

/// What follows from the spec, and the state of the authorities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustDomainStatus {
    /// `Ready`, `Reconciling`, `Stalled`; `BundleAcknowledged`; `BundleSequenceConsistent`, which is false while agents report a
    /// newer bundle than there is; `RotationComplete` where a rotation is requested; `RequestedAuthoritiesKnown` where
    /// authorities are tainted or revoked; `JWTIssuerUsable` where JWT-SVIDs have an issuer; `NamespacesSeparated`, which is false while grants that were stored before this was
    /// checked let two namespaces claim the same path or DNS name. They are honoured. Of a remote trust domain: `ConsentsComplete`,
    /// which is false while WorkloadIdentities name it and lack a consent, and one of each of these while it holds:
    /// `BootstrapExpiring`, `BootstrapNotNewer`, `BootstrapRefused`, `BootstrapReplaceSet`, `BootstrapWithoutEnd`,
    /// `EndpointNotVerifiable`, `KeysDropped`, `PollFailing`, `SequenceMissing`, `SequenceReused`, `SharedAnchor`,
    /// `StoredUnreadable`, `TrustsNothing`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec of which this status speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The trust domain's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// The bundle as last published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleStatus>,
    /// The authorities, in the order in which they become active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub authorities: Vec<AuthorityStatus>,
    /// When the next authority takes over, at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_switch: Option<Time>,
    /// Authorities that were tainted or revoked and have left the bundle, for as long as the spec names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub removed: Vec<RemovedAuthority>,
    /// Of a remote trust domain: where its bundle is from, and what came of the polls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteStatus>,
    /// Of a remote trust domain: how many WorkloadIdentities get its bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<i64>,
}

/// An authority that was tainted or revoked and has left the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedAuthority {
    /// What it signed.
    pub kind: AuthorityKind,
    /// Its id.
    pub id: String,
    /// Of its certificate, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_key_id: Option<String>,
    /// When it was found to have left the bundle.
    pub removed_at: Time,
    /// Until when those who look for a new bundle as often as it asks them to may accept what it signed. A workload whose agent
    /// is not connected does so until the agent is back.
    pub accepted_until: Time,
}

/// The bundle as last published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleStatus {
    /// Grows with every change of the bundle.
    pub sequence: i64,
    /// What the bundle says about how often to look for a new one.
    pub refresh_hint: Lifetime,
    /// How many workloads have acknowledged it, of those that are expected to: such as `998/1000`. Absent unless every replica
    /// of the operator has reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<String>,
    /// How many more workloads have it from agents that cannot acknowledge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unable: Option<i64>,
}

/// One authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// What it signs.
    pub kind: AuthorityKind,
    /// Its random id; of a JWT authority the `kid`.
    pub id: String,
    /// Where it is in its life.
    pub state: AuthorityState,
    /// From when it signs.
    pub activate_at: Time,
    /// From when it no longer signs.
    pub retire_at: Time,
    /// When it leaves the bundle.
    pub remove_at: Time,
    /// The end of its certificate, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Of its certificate, if it has one: hexadecimal, as in `openssl x509 -text` without colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_key_id: Option<String>,
    /// Of one that is prepared: how many workloads have acknowledged the bundle that holds it, such as `998/1000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<String>,
}

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityKind {
    /// X.509-SVIDs.
    X509,
    /// JWT-SVIDs.
    Jwt,
    /// WIT-SVIDs.
    Wit,
}

/// Where an authority is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityState {
    /// In the bundle, not signing yet.
    Prepared,
    /// Signing.
    Active,
    /// In the bundle until the last thing it signed has expired.
    Retiring,
    /// No longer to be trusted.
    Tainted,
}
