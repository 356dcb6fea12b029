//! `WorkloadIdentity`: which pods of a namespace hold which id, and with what.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function body")]
#![allow(clippy::duplicated_attributes, reason = "several printer columns have the same type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Lifetime, PodSelector};

/// An identity for pods of this namespace, within what a TrustDomain grants to it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "countersign.dev",
    version = "v1alpha1",
    kind = "WorkloadIdentity",
    plural = "workloadidentities",
    shortname = "wid",
    category = "countersign",
    namespaced,
    status = "WorkloadIdentityStatus",
    derive = "PartialEq",
    doc = "An identity for pods of this namespace, within what a TrustDomain grants to it.",
    printcolumn(name = "Trust Domain", type_ = "string", json_path = ".spec.trustDomain"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.matched"),
    printcolumn(name = "Served", type_ = "integer", json_path = ".status.pods.served"),
    printcolumn(name = "Held", type_ = "integer", json_path = ".status.pods.held", priority = 1),
    printcolumn(name = "Not Injected", type_ = "integer", json_path = ".status.pods.notInjected", priority = 1),
    printcolumn(name = "Outdated Agents", type_ = "integer", json_path = ".status.outdatedAgents", priority = 1),
    // A column of type `date` is printed as an age, and one that is to come as `<invalid>`.
    printcolumn(name = "Next Expiry", type_ = "string", json_path = ".status.nextExpiry", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentitySpec {
    /// The TrustDomain, by the name of its object. Immutable.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.trustDomain is immutable: make another WorkloadIdentity"))]
    pub trust_domain: String,
    /// Which pods hold it.
    pub selector: PodSelector,
    /// The path of the id. Whole segments may be `{namespace}`, `{serviceAccount}`, `{podName}` or `{cluster}`, which are
    /// taken from what is attested, never from labels.
    #[serde(default = "WorkloadIdentitySpec::default_path")]
    #[schemars(length(min = 2, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.matches('^(/([a-zA-Z0-9._-]+|[{][^{}/]*[}]))+$')")
            .message("a path is one or more segments, each / and letters, digits, '.', '_' or '-', or / and a placeholder such as {namespace}"),
        validation = Rule::new("self.split('/').all(s, s != '.' && s != '..')").message("a path has no segment '.' or '..'"),
        validation = Rule::new("self.split('/').all(s, !s.startsWith('{') || s in ['{namespace}', '{serviceAccount}', '{podName}', '{cluster}'])")
            .message("unknown placeholder: allowed are {namespace}, {serviceAccount}, {podName} and {cluster}"),
    )]
    pub path: String,
    /// What its X.509-SVIDs carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509: Option<X509Claims>,
    /// What its JWT-SVIDs carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtClaims>,
    /// Gives it WIT-SVIDs, which bind the id to a key that the workload proves to hold: `{}` takes every default. Its TrustDomain must
    /// have `authority.wit`. Experimental, as the specification is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wit: Option<WitClaims>,
    /// Foreign trust domains whose bundles it is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9._-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub federates_with: Vec<String>,
    /// The name by which a workload with several identities tells them apart (SPIFFE Workload API, `hint`); also the
    /// name of its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self != 'jwt'").message("the hint 'jwt' is taken by the folder of the tokens"))]
    pub hint: Option<String>,
}

/// What X.509-SVIDs carry beside the id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct X509Claims {
    /// How long one lives; the trust domain's `x509.svidTTL` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("an SVID lives at least 10s"))]
    pub ttl: Option<Lifetime>,
    /// DNS names; `{namespace}` and `{serviceAccount}` may be whole labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub dns_names: Vec<String>,
}

/// What JWT-SVIDs carry beside the id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtClaims {
    /// How long one lives; the trust domain's `jwt.svidTTL` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("an SVID lives at least 10s"))]
    pub ttl: Option<Lifetime>,
    /// Audiences for which the workload may ask for tokens: exact, for which files are kept too, or a prefix ending in `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
}

/// How a workload gets WIT-SVIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WitClaims {
    /// How long one lives; the trust domain's `wit.svidTTL` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("an SVID lives at least 10s"))]
    pub ttl: Option<Lifetime>,
    /// Whether the workload gets the keys of its WIT-SVIDs (`FetchWITSVID` of the Workload API). Otherwise they stay in the agent.
    #[serde(default, skip_serializing_if = "is_false")]
    pub export_key: bool,
}

/// What follows from the spec, the grants and the pods there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentityStatus {
    /// `Ready`, `Reconciling`, `Stalled`; `StatsComplete`, which is false while a replica of the operator cannot report its
    /// streams: then what is counted there keeps its previous value; `CredentialsRefreshable`,
    /// which is false while pods mount a part of their identity by `subPath`, where it is never renewed, and absent while no
    /// pod may get the identity; `Conflicting`, which is true while others hold some of the ids or DNS names that this
    /// object claims, and absent otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec of which this status speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The id, with the placeholders that differ from pod to pod.
    #[serde(default, rename = "spiffeIDTemplate", skip_serializing_if = "Option::is_none")]
    pub spiffe_id_template: Option<String>,
    /// How many pods it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// No X.509-SVID that a served pod holds ends before this. Moved on only once it has passed, or when one ends earlier:
    /// that pods renew is no news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_expiry: Option<Time>,
    /// Which ids and DNS names this object claims, and since when each claim is granted: of two that claim the same the one
    /// claimed first keeps it, whichever object is older. Written by the operator alone; absent until it has looked at the
    /// object, empty while nothing is granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1088))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub claims: Option<Vec<ClaimRecord>>,
    /// Served pods whose agent is outdated: restart them. Absent until the operator's replicas were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated_agents: Option<i64>,
    /// Served pods by the versions of their agents: at most 5, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub agents: Vec<AgentVersion>,
    /// Pods with an agent that have not got what they are entitled to, or whose clock is wrong, as their agents say: at most 20
    /// entries, of pods of this namespace. `pods.held` counts those that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub undelivered: Vec<Undelivered>,
}

/// How many pods have an agent of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentVersion {
    /// Such as `0.1`; `unknown` where an agent names none that can be read.
    pub version: String,
    /// Pods.
    pub pods: i64,
}

/// What is wrong with the delivery to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Undelivered {
    /// The pod's name.
    pub pod: String,
    /// What it is, in CamelCase; `kubectl countersign explain` has a page on it.
    pub reason: String,
    /// What it is, in words, with the code of the reason.
    pub message: String,
}

/// One claim and its age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRecord {
    /// What is claimed.
    pub kind: ClaimKind,
    /// The path or DNS name, with `*` for each part that differs between pods.
    #[schemars(length(min = 1, max = 2048))]
    pub value: String,
    /// Since when it counts: from when it was granted, or later.
    pub since: MicroTime,
}

/// What is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimKind {
    /// The path of a SPIFFE ID, which one WorkloadIdentity holds.
    Path,
    /// A DNS name, which the WorkloadIdentities of one namespace hold.
    DNSName,
}

/// How many pods an identity is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Pods that are alive and selected.
    pub matched: i64,
    /// Those of them that have no agent: they were made before their namespace or they carried the label. Restart them.
    pub not_injected: i64,
    /// Pods whose agents hold this identity over an open stream, at most `matched`. Counted every 30 s; absent until the
    /// operator's replicas were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<i64>,
    /// Those of them whose workload can use the X.509-SVID that was issued to it last: on its socket and in its files, as their agents
    /// say. Absent until the operator's replicas were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<i64>,
}

impl WorkloadIdentitySpec {
    /// The path where a spec names none.
    pub const DEFAULT_PATH: &str = "/ns/{namespace}/sa/{serviceAccount}";

    fn default_path() -> String {
        Self::DEFAULT_PATH.to_owned()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}
