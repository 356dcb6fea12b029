//! The remote part of a `TrustDomain`: where the bundle of another authority's trust domain comes from, and who may trust it.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function body")]

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Lifetime, NamespaceSelector};

/// A trust domain of another authority.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.endpoint) || has(self.bootstrap)")
        .message("where does its bundle come from? At least one of endpoint and bootstrap must be given"),
)]
pub struct Remote {
    /// Its bundle endpoint, which is polled. Without one the bundle comes from `bootstrap` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<BundleEndpoint>,
    /// A bundle to begin with, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// The namespaces whose workloads may trust it. A workload gets its bundle if its WorkloadIdentity names the trust domain in
    /// `federatesWith`, the grant for it does too, and its namespace is one of these.
    pub namespaces: NamespaceSelector,
    /// The paths of its ids that are accepted where ids are checked: by the agent's `ValidateJWTSVID` and by verifiers that read
    /// them. Segments are literals, `*` (any one segment), and at the end `**` (one or more); all paths if absent. Whoever checks
    /// certificate chains only accepts every id of the trust domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 2, max = 1024), regex(pattern = r"^(/([a-zA-Z0-9._-]+|\*\*?))+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub paths: Vec<String>,
    /// How long a polled bundle is trusted after it was confirmed last.
    #[serde(default = "Remote::default_max_stale")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('2m') && duration(self) <= duration('8760h')")
        .message("maxStale is from 2m to 8760h (a year)"))]
    pub max_stale: Lifetime,
}

/// A bundle endpoint (SPIFFE Federation, section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.profile == 'https_spiffe') == has(self.spiffeID)")
        .message("spiffeID goes with the profile https_spiffe, and only with it"),
    validation = Rule::new("(self.profile == 'wimse_discovery') != has(self.url)")
        .message("url goes with the profiles https_web and https_spiffe: wimse_discovery finds it from the trust domain's name"),
    validation = Rule::new("self.profile != 'https_spiffe' || !has(self.caBundle)")
        .message("caBundle does not go with the profile https_spiffe: an https_spiffe endpoint is verified by the bundle of its trust domain"),
)]
pub struct BundleEndpoint {
    /// Where it is: an https URL without user information. Absent with the profile `wimse_discovery`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 2048), regex(pattern = r"^https://[^@\s]+$"))]
    pub url: Option<String>,
    /// How it is authenticated.
    pub profile: EndpointProfile,
    /// The SPIFFE ID of an `https_spiffe` endpoint. It may be of another trust domain, whose bundle is then needed too.
    #[serde(default, rename = "spiffeID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 12, max = 2048), regex(pattern = r"^spiffe://[a-z0-9._-]+/"))]
    pub spiffe_id: Option<String>,
    /// Certificates of the authorities that an `https_web` or `wimse_discovery` endpoint is verified by, PEM; the public ones if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 131_072))]
    pub ca_bundle: Option<String>,
}

/// How a bundle endpoint is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndpointProfile {
    /// By the public certificate authorities, or those of `caBundle` (SPIFFE Federation, section 5.2.1).
    #[serde(rename = "https_web")]
    HttpsWeb,
    /// By its X509-SVID (SPIFFE Federation, section 5.2.2).
    #[serde(rename = "https_spiffe")]
    HttpsSpiffe,
    /// Experimental: found by WIMSE Trust Domain Discovery (draft-schwenkschuster-wimse-trust-domain-discovery-00) at
    /// `https://<trust domain>/.well-known/wimse-trust-domain`, and authenticated as by `https_web`.
    #[serde(rename = "wimse_discovery")]
    WimseDiscovery,
}

/// A bundle in the spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// The bundle document (SPIFFE Trust Domain and Bundle, section 4), JSON. A changed one takes effect if its `spiffe_sequence`
    /// is higher than any that was accepted before: reverting a commit must not restore revoked keys.
    #[schemars(length(min = 2, max = 524_288))]
    pub bundle: String,
    /// Takes the bundle whatever its sequence is. Remove it once that has happened.
    #[serde(default, skip_serializing_if = "is_false")]
    pub replace: bool,
}

/// What is known of a remote trust domain's bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteStatus {
    /// Where the bundle came from; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<BundleOrigin>,
    /// How many X.509 authorities it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509_authorities: Option<i64>,
    /// How many JWT authorities it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_authorities: Option<i64>,
    /// Since when it holds these keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Time>,
    /// When a poll confirmed it last; of one from the spec, when it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Time>,
    /// Until when it is trusted unless it is confirmed or replaced before. Absent: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_until: Option<Time>,
    /// When the endpoint is polled next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_poll: Option<Time>,
    /// Why the last poll brought nothing; absent once one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<PollError>,
}

/// Where a bundle came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BundleOrigin {
    /// From `spec.remote.bootstrap`.
    Bootstrap,
    /// From the endpoint.
    Polled,
}

/// Why polls bring nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PollError {
    /// Of a closed list, CamelCase.
    pub reason: String,
    /// What was wrong and what to do.
    pub message: String,
    /// How many polls in a row failed.
    pub count: i64,
    /// When the first of them was.
    pub since: Time,
}

impl Remote {
    fn default_max_stale() -> Lifetime {
        Lifetime::from(Duration::from_secs(24 * 3600))
    }
}

fn is_false(value: &bool) -> bool {
    !value
}
