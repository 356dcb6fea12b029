//! `TrustDomain`: whose word counts, what it may be asked to sign, and on what terms.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function body")]
#![allow(clippy::duplicated_attributes, reason = "several printer columns have the same type")]

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Lifetime, NamespaceSelector, Remote, RemoteStatus};

const HOUR: Duration = Duration::from_secs(3600);

/// The default of `taint.maxDelay`.
const TAINT_DELAY: Duration = Duration::from_secs(600);

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

/// How this cluster makes and renews what it signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "duration(self.x509.caTTL) >= duration(has(self.x509.maxSVIDTTL) ? self.x509.maxSVIDTTL : self.x509.svidTTL) \
         + duration(has(self.x509.maxSVIDTTL) ? self.x509.maxSVIDTTL : self.x509.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest X.509 SVID life + 3 × bundleRefreshHint): a successor must be known everywhere before it signs"),
    validation = Rule::new(
        "duration(self.x509.caTTL) >= duration(has(self.jwt.maxSVIDTTL) ? self.jwt.maxSVIDTTL : self.jwt.svidTTL) \
         + duration(has(self.jwt.maxSVIDTTL) ? self.jwt.maxSVIDTTL : self.jwt.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest JWT-SVID life + 3 × bundleRefreshHint): JWT keys live as long as CAs do"),
    validation = Rule::new(
        "!has(self.wit) || duration(self.x509.caTTL) >= duration(has(self.wit.maxSVIDTTL) ? self.wit.maxSVIDTTL : self.wit.svidTTL) \
         + duration(has(self.wit.maxSVIDTTL) ? self.wit.maxSVIDTTL : self.wit.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest WIT-SVID life + 3 × bundleRefreshHint): WIT keys live as long as CAs do"),
    validation = Rule::new(
        "!has(self.rotation) || !has(self.rotation.maxDelay) || duration(self.x509.caTTL) >= duration(self.rotation.maxDelay) \
         + duration(has(self.x509.maxSVIDTTL) ? self.x509.maxSVIDTTL : self.x509.svidTTL) \
         + duration(has(self.x509.maxSVIDTTL) ? self.x509.maxSVIDTTL : self.x509.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest X.509 SVID life + 3 × bundleRefreshHint) + rotation.maxDelay: no delay may shorten what is signed"),
    validation = Rule::new(
        "!has(self.rotation) || !has(self.rotation.maxDelay) || duration(self.x509.caTTL) >= duration(self.rotation.maxDelay) \
         + duration(has(self.jwt.maxSVIDTTL) ? self.jwt.maxSVIDTTL : self.jwt.svidTTL) \
         + duration(has(self.jwt.maxSVIDTTL) ? self.jwt.maxSVIDTTL : self.jwt.svidTTL) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) \
         + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint) + duration(self.bundleRefreshHint)")
        .message("x509.caTTL must be at least 2 × (the longest JWT-SVID life + 3 × bundleRefreshHint) + rotation.maxDelay: no delay may shorten what is signed"),
)]
pub struct Authority {
    /// X.509-SVIDs and the CAs that sign them.
    #[serde(default)]
    pub x509: X509Authority,
    /// JWT-SVIDs and the keys that sign them. These keys live as long as `x509.caTTL` says.
    #[serde(default)]
    pub jwt: JwtAuthority,
    /// WIT-SVIDs and the keys that sign them, which live as long as `x509.caTTL` says: `{}` takes every default. Without it there are none.
    /// Experimental, as the specification is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wit: Option<WitAuthority>,
    /// How often those who trust this domain are asked to look for a new bundle (SPIFFE Trust Domain and Bundle, 4.1.2).
    #[serde(default = "Authority::default_refresh_hint")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("the refresh hint is at least 1s"))]
    pub bundle_refresh_hint: Lifetime,
    /// When authorities are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// How tainted authorities leave the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taint: Option<Taint>,
    /// Authorities that are no longer to be trusted soon, by id or subject key id: the spare signs at once, what they signed is
    /// renewed, and then they leave the bundle. Removing an entry undoes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = r"^[0-9a-zA-Z:_-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tainted: Vec<String>,
    /// Authorities whose keys have leaked, by id or subject key id: they leave the bundle at once, and what they signed is refused
    /// by everyone who has the new bundle. If all are named, a new one signs before it can be known everywhere. Removing an entry
    /// undoes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128), regex(pattern = r"^[0-9a-zA-Z:_-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub revoked: Vec<String>,
}

/// When authorities are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Every authority that was prepared before this time is replaced, as soon as its successor is known everywhere. In the
    /// future: then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Time>,
    /// How long a switch may wait for agents to acknowledge the bundle that holds the successor. A tenth of `x509.caTTL` if
    /// absent, at most 1h, or less where `caTTL` leaves less. Whoever has not got the successor of a requested rotation by then
    /// refuses what it signs, until it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("a switch may wait for at most 24h"))]
    pub max_delay: Option<Lifetime>,
}

/// How tainted authorities leave the bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// How long a tainted X.509 authority stays in the bundle at most, if not everything that it signed has been renewed before;
    /// 10m if absent. Whoever was offline for longer is then cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("a taint lasts at least 1s"))]
    pub max_delay: Option<Lifetime>,
}

/// X.509-SVIDs and the CAs that sign them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.maxSVIDTTL) || duration(self.maxSVIDTTL) >= duration(self.svidTTL)")
    .message("maxSVIDTTL must not be below svidTTL"))]
pub struct X509Authority {
    /// The CA's key.
    #[serde(default)]
    pub key_type: KeyType,
    /// How long a CA lives.
    #[serde(default = "X509Authority::default_ca_ttl", rename = "caTTL")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('87600h')").message("a CA lives at most 87600h (ten years)"))]
    pub ca_ttl: Lifetime,
    /// How long an X.509-SVID lives unless its WorkloadIdentity says otherwise.
    #[serde(default = "X509Authority::default_svid_ttl", rename = "svidTTL")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("an SVID lives at least 10s"))]
    pub svid_ttl: Lifetime,
    /// The longest life a WorkloadIdentity may ask for; `svidTTL` if absent.
    #[serde(default, rename = "maxSVIDTTL", skip_serializing_if = "Option::is_none")]
    pub max_svid_ttl: Option<Lifetime>,
}

/// JWT-SVIDs and the keys that sign them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.maxSVIDTTL) || duration(self.maxSVIDTTL) >= duration(self.svidTTL)")
    .message("maxSVIDTTL must not be below svidTTL"))]
pub struct JwtAuthority {
    /// The signing key.
    #[serde(default)]
    pub key_type: KeyType,
    /// How long a JWT-SVID lives unless its WorkloadIdentity says otherwise.
    #[serde(default = "JwtAuthority::default_svid_ttl", rename = "svidTTL")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("an SVID lives at least 10s"))]
    pub svid_ttl: Lifetime,
    /// The longest life a WorkloadIdentity may ask for; `svidTTL` if absent.
    #[serde(default, rename = "maxSVIDTTL", skip_serializing_if = "Option::is_none")]
    pub max_svid_ttl: Option<Lifetime>,
    /// The claim `iss` of JWT-SVIDs; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https://[^?#\s]+$"))]
    pub issuer: Option<String>,
}

/// WIT-SVIDs and the keys that sign them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.maxSVIDTTL) || duration(self.maxSVIDTTL) >= duration(self.svidTTL)")
    .message("maxSVIDTTL must not be below svidTTL"))]
pub struct WitAuthority {
    /// The signing key.
    #[serde(default)]
    pub key_type: KeyType,
    /// How long a WIT-SVID lives unless its WorkloadIdentity says otherwise.
    #[serde(default = "WitAuthority::default_svid_ttl", rename = "svidTTL")]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('10s')").message("an SVID lives at least 10s"),
        validation = Rule::new("duration(self) <= duration('24h')").message("a WIT-SVID lives at most 24h"),
    )]
    pub svid_ttl: Lifetime,
    /// The longest life a WorkloadIdentity may ask for, at most a day; `svidTTL` if absent.
    #[serde(default, rename = "maxSVIDTTL", skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("a WIT-SVID lives at most 24h"))]
    pub max_svid_ttl: Option<Lifetime>,
}

/// Which keys are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    #[serde(rename = "ec-p256")]
    EcP256,
    /// ECDSA on P-384.
    #[serde(rename = "ec-p384")]
    EcP384,
    /// RSA with 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

/// What WorkloadIdentities of some namespaces may claim. All claims of one WorkloadIdentity are held against one grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.shared) && self.shared) || self.paths.all(p, (p + '/').contains('/{namespace}/'))")
    .message("a path pattern contains the segment {namespace}, so that namespaces cannot claim each other's ids, unless the grant says shared: true"))]
pub struct Grant {
    /// The namespaces to which this is granted.
    pub namespaces: NamespaceSelector,
    /// Path patterns: segments are literals, `{namespace}`, `{serviceAccount}`, `{podName}`, `{cluster}`, `*` (any one
    /// segment), and at the end `**` (one or more). Patterns of grants that are not shared must keep namespaces apart:
    /// `/{namespace}/**` beside `/ns/{namespace}/**` would let a namespace called `ns` claim ids of others.
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 2, max = 1024), regex(pattern = r"^(/([a-zA-Z0-9._-]+|\{[a-zA-Z]+\}|\*\*?))+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub paths: Vec<String>,
    /// DNS names: exact, `*.` and one label's rest, or with `{namespace}` and `{serviceAccount}` as whole labels. Each has
    /// the label `{namespace}`, unless the grant is for one namespace by `matchNames` or is shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub dns_names: Vec<String>,
    /// Audiences: exact, or a prefix ending in `*`. A prefix ends at a boundary: `https://a.org*` also covers
    /// `https://a.org.evil.com`, `https://a.org/*` does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
    /// Foreign trust domains whose bundles may be handed to workloads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9._-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub federates_with: Vec<String>,
    /// Whether pods may be selected by labels alone. Whoever may label a pod then chooses its identity.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_label_only: bool,
    /// Whether paths and DNS names may do without `{namespace}`, and may be claimed by several namespaces. Each id and each
    /// name still has one holder: of two that claim it the oldest holds.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared: bool,
}

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

impl TrustDomain {
    /// The trust domain's name: `spec.trustDomain`, else the object's.
    #[must_use]
    pub fn trust_domain_name(&self) -> &str {
        self.spec.trust_domain.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}

impl Authority {
    fn default_refresh_hint() -> Lifetime {
        Lifetime::from_minutes(5)
    }

    /// How long a switch may wait for acknowledgements: what is asked for, else a tenth of a CA's life, at most an hour and at
    /// most what that leaves beside twice the time that an SVID and its successor's publication take.
    #[must_use]
    pub fn max_delay(&self) -> Duration {
        let asked = self.rotation.as_ref().and_then(|rotation| rotation.max_delay);
        asked.map_or_else(
            || {
                let life = self.x509.ca_ttl.duration();
                let least = (self.longest_svid_life().duration() + self.bundle_refresh_hint.duration() * 3) * 2;
                (life / 10).min(HOUR).min(life.saturating_sub(least))
            },
            |asked| asked.duration(),
        )
    }

    /// How long a tainted authority stays in the bundle at most.
    #[must_use]
    pub fn taint_max_delay(&self) -> Duration {
        let asked = self.taint.as_ref().and_then(|taint| taint.max_delay);
        asked.map_or(TAINT_DELAY, |asked| asked.duration())
    }

    /// The longest life of anything signed: how long a retired authority must stay in the bundle.
    #[must_use]
    pub fn longest_svid_life(&self) -> Lifetime {
        let wit = self.wit.as_ref().map(WitAuthority::longest_svid_life);
        let longest = self.x509.longest_svid_life().max(self.jwt.longest_svid_life());
        wit.map_or(longest, |wit| longest.max(wit))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            x509: X509Authority::default(),
            jwt: JwtAuthority::default(),
            wit: None,
            bundle_refresh_hint: Self::default_refresh_hint(),
            rotation: None,
            taint: None,
            tainted: Vec::new(),
            revoked: Vec::new(),
        }
    }
}

impl WitAuthority {
    fn default_svid_ttl() -> Lifetime {
        Lifetime::from_minutes(15)
    }

    /// The longest life a WorkloadIdentity may ask for.
    #[must_use]
    pub fn longest_svid_life(&self) -> Lifetime {
        self.max_svid_ttl.unwrap_or(self.svid_ttl)
    }
}

impl Default for WitAuthority {
    fn default() -> Self {
        Self { key_type: KeyType::default(), svid_ttl: Self::default_svid_ttl(), max_svid_ttl: None }
    }
}

impl X509Authority {
    fn default_ca_ttl() -> Lifetime {
        Lifetime::from_hours(24)
    }

    fn default_svid_ttl() -> Lifetime {
        Lifetime::from_hours(1)
    }

    /// The longest life a WorkloadIdentity may ask for.
    #[must_use]
    pub fn longest_svid_life(&self) -> Lifetime {
        self.max_svid_ttl.unwrap_or(self.svid_ttl)
    }
}

impl Default for X509Authority {
    fn default() -> Self {
        Self {
            key_type: KeyType::default(),
            ca_ttl: Self::default_ca_ttl(),
            svid_ttl: Self::default_svid_ttl(),
            max_svid_ttl: None,
        }
    }
}

impl JwtAuthority {
    fn default_svid_ttl() -> Lifetime {
        Lifetime::from_minutes(5)
    }

    /// The longest life a WorkloadIdentity may ask for.
    #[must_use]
    pub fn longest_svid_life(&self) -> Lifetime {
        self.max_svid_ttl.unwrap_or(self.svid_ttl)
    }
}

impl Default for JwtAuthority {
    fn default() -> Self {
        Self { key_type: KeyType::default(), svid_ttl: Self::default_svid_ttl(), max_svid_ttl: None, issuer: None }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}
