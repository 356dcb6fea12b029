//! What may be claimed in a trust domain, and from where.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function body")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::NamespaceSelector;

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

fn is_false(value: &bool) -> bool {
    !value
}
