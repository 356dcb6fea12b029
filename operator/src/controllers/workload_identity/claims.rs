//! What the status says of claims: since when each is granted, from which every replica derives who holds, and which of
//! them others hold.

use countersign_reasons::Reason;
use std::collections::BTreeMap;

use countersign_core::entitlement::{ClaimKey, ClaimKind, Judged};
use countersign_crds::{self as crds, ClaimRecord, condition::CONFLICTING};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};

use crate::controllers::conditions;
use countersign_index::IdentityView;

/// How many lost claims are named.
const NAMED: usize = 8;

/// `status.claims`.
pub(super) fn records(claims: BTreeMap<ClaimKey, Timestamp>) -> Vec<ClaimRecord> {
    let record = |(claim, since): (ClaimKey, Timestamp)| ClaimRecord {
        kind: match claim.kind {
            ClaimKind::Path => crds::ClaimKind::Path,
            ClaimKind::DnsName => crds::ClaimKind::DNSName,
        },
        value: claim.value.into(),
        since: MicroTime(since),
    };
    claims.into_iter().map(record).collect()
}

/// The condition `Conflicting`: of an identity that pods may get, except for some of what it claims.
pub(super) fn condition(
    view: &IdentityView,
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> Option<Condition> {
    let judged = view.outcome.as_ref().ok().filter(|judged| judged.is_admitted() && !judged.lost().is_empty())?;
    Some(conditions::condition(CONFLICTING, ("True", Reason::ClaimedByAnother, message(judged)), generation, old, now))
}

fn message(judged: &Judged) -> String {
    let lost = judged.lost().iter().take(NAMED).map(|lost| {
        let kind = match lost.claim.kind {
            ClaimKind::Path => "path",
            ClaimKind::DnsName => "DNS name",
        };
        format!("{kind} {} is held by WorkloadIdentity {}/{}", lost.claim.value, lost.namespace, lost.name)
    });
    let lost: Vec<_> = lost.collect();
    let more = match judged.lost().len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!(
        "pods do not get what an older claim of another holds: {}{more}. Remove it from the spec, or ask the holder's owner",
        lost.join("; ")
    )
}
