//! `TrustDomain`: whose word counts, what it may be asked to sign, and on what terms.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function body")]
#![allow(clippy::duplicated_attributes, reason = "several printer columns have the same type")]

mod authority;
mod grant;
mod status;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use authority::{Authority, JwtAuthority, KeyType, Rotation, Taint, WitAuthority, X509Authority};
pub use grant::Grant;
pub use status::{AuthorityKind, AuthorityState, AuthorityStatus, BundleStatus, RemovedAuthority, TrustDomainStatus};

use crate::Remote;

/// A trust domain: of which this cluster is the authority, or which another one has.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "TrustDomain",
    plural = "trustdomains",
    shortname = "td",
    category = "countersign",
    status = "TrustDomainStatus",
    derive = "PartialEq",
    doc = "A trust domain: whose word counts, what it may be asked to sign, and on what terms.",
    // The journal's Secret is named `trust-domain.<name>`; a name has at most 253 characters.
    validation = Rule::new("size(self.metadata.name) <= 240").message("the name of a TrustDomain has at most 240 characters"),
    printcolumn(name = "Trust Domain", type_ = "string", json_path = ".status.trustDomain"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Next Switch", type_ = "string", json_path = ".status.nextSwitch"),
    // Of remote trust domains. A time that is to come is printed as such: a column of type `date` shows it as `<invalid>`.
    printcolumn(name = "Confirmed", type_ = "date", json_path = ".status.remote.confirmedAt"),
    printcolumn(name = "Next Poll", type_ = "string", json_path = ".status.remote.nextPoll"),
    printcolumn(name = "Last Error", type_ = "string", json_path = ".status.remote.lastError.reason"),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".status.bundle.sequence"),
    printcolumn(name = "Used By", type_ = "integer", json_path = ".status.usedBy", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    // Each further kind of trust domain joins this list.
    validation = Rule::new("[has(self.authority), has(self.remote)].exists_one(kind, kind)").message("exactly one of these must be given: authority, remote"),
    validation = Rule::new("!has(self.remote) || !has(self.grants) || size(self.grants) == 0")
        .message("grants say what this cluster signs, and it signs nothing of a remote trust domain: remove them; remote.namespaces say who may trust it"),
    validation = Rule::new("has(self.authority) == has(oldSelf.authority)")
        .message("the kind of a trust domain is immutable: delete it and make another"),
    validation = Rule::new("has(self.trustDomain) == has(oldSelf.trustDomain) && (!has(self.trustDomain) || self.trustDomain == oldSelf.trustDomain)")
        .message("spec.trustDomain is immutable: every identity is named after it"),
)]
pub struct TrustDomainSpec {
    /// The trust domain's name; that of the object if absent. Two clusters with the same name are two authorities that
    /// give the same ids, and nothing tells these apart once somebody trusts both: give each cluster its own name, or put
    /// `{cluster}` into every path that is granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9._-]+$"))]
    pub trust_domain: Option<String>,
    /// This cluster is the authority: `{}` takes every default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
    /// Another authority has it: where its bundle comes from, and who may trust it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// What may be claimed, and from where. Nothing may that no grant names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub grants: Vec<Grant>,
}

impl TrustDomain {
    /// The trust domain's name: `spec.trustDomain`, else the object's.
    #[must_use]
    pub fn trust_domain_name(&self) -> &str {
        self.spec.trust_domain.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
