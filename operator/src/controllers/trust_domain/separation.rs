//! The condition `NamespacesSeparated`. Grants that admission refuses today may be stored from before it did, or overlap by
//! the cluster's name, which admission does not know: they are honoured, and this says so.

use countersign_core::entitlement::{DomainSpec, path_overlaps};
use countersign_crds::{TrustDomain, condition::NAMESPACES_SEPARATED};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::controllers::conditions;

/// How many overlaps and DNS names a message tells.
const TOLD: usize = 4;

/// Whether the grants of `spec`, which is that of `object`, keep namespaces apart.
pub(super) fn condition(spec: &DomainSpec, object: &TrustDomain, now: Timestamp) -> Condition {
    let paths = spec.unshared_paths();
    // One more than is told, to know whether there are more.
    let overlaps: Vec<_> =
        path_overlaps(&paths, &spec.cluster, |_, _| true).map(|overlap| overlap.to_string()).take(TOLD + 1).collect();
    let names: Vec<_> = spec.unseparated_names().map(|name| name.to_string()).take(TOLD + 1).collect();
    let (status, reason) = match (overlaps.is_empty(), names.is_empty()) {
        (true, true) => ("True", Reason::Separated),
        (false, _) => ("False", Reason::OverlappingGrants),
        (true, false) => ("False", Reason::UnseparatedDNSNames),
    };
    let old = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions::condition(
        NAMESPACES_SEPARATED,
        (status, reason, message(&overlaps, &names)),
        object.metadata.generation,
        old,
        now,
    )
}

fn message(overlaps: &[String], names: &[String]) -> String {
    if overlaps.is_empty() && names.is_empty() {
        return "no two namespaces can claim the same path, unless a grant is shared".to_owned();
    }
    let told = |all: &[String]| {
        let more = (all.len() > TOLD).then(|| "there are more of this kind".to_owned());
        all.iter().take(TOLD).cloned().chain(more).collect::<Vec<_>>()
    };
    let honoured = "these grants are honoured, and of two claims the oldest holds".to_owned();
    [told(overlaps), told(names), vec![honoured]].concat().join("; ")
}
