//! What is recorded of the ages of a WorkloadIdentity's claims.

use countersign_core::entitlement::{ClaimHistory, ClaimKey, ClaimKind};
use countersign_crds as crds;

/// What the status says of the ages of the claims.
pub fn history(object: &crds::WorkloadIdentity) -> ClaimHistory {
    match object.status.as_ref().and_then(|status| status.claims.as_ref()) {
        Some(claims) => ClaimHistory::Recorded(claims.iter().map(|one| (claim(one), one.since.0)).collect()),
        None if is_original(object) => ClaimHistory::Original,
        None => ClaimHistory::Changed,
    }
}

fn claim(record: &crds::ClaimRecord) -> ClaimKey {
    let kind = match record.kind {
        crds::ClaimKind::Path => ClaimKind::Path,
        crds::ClaimKind::DNSName => ClaimKind::DnsName,
    };
    ClaimKey { kind, value: record.value.as_str().into() }
}

/// Whether the claims of an object of which none is recorded are those that it was created with, and were granted as far
/// as the leader has looked. An operator of an earlier version recorded no claims: what it found granted is as old as its
/// object, as it was to that operator, so that an upgrade takes nothing from anybody.
fn is_original(object: &crds::WorkloadIdentity) -> bool {
    let as_created = object.metadata.generation == Some(1);
    let Some(status) = object.status.as_ref().filter(|status| status.observed_generation.is_some()) else {
        return as_created;
    };
    let ready = status.conditions.iter().find(|one| one.type_ == crds::condition::READY);
    let reason = ready.map(|one| one.reason.as_str());
    if status.observed_generation != object.metadata.generation {
        return false;
    }
    match reason {
        _ if ready.is_some_and(|ready| ready.status == "True") => true,
        Some("AuthorityNotReady" | "AuthorityStalled") => true,
        Some("Conflict" | "NoTrustDomain") => as_created,
        _ => false,
    }
}
