//! What the status says of requested rotations, taints and revocations: how far they are, and which names mean no authority.

use countersign_core::journal::{AuthorityConfig, AuthoritySlot, Journal, Kind, State, names_key_id, whole_after};
use countersign_crds::{
    AuthorityKind, RemovedAuthority, TrustDomain, TrustDomainStatus,
    condition::{REQUESTED_AUTHORITIES_KNOWN, ROTATION_COMPLETE},
};
use countersign_reasons::Reason;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::controllers::conditions;

/// The kinds as the journal and as the status name them.
pub(super) const KINDS: [(Kind, AuthorityKind); 3] =
    [(Kind::X509, AuthorityKind::X509), (Kind::Jwt, AuthorityKind::Jwt), (Kind::Wit, AuthorityKind::Wit)];

/// Authorities that the spec names and that have left the bundle: those that the old status had, and those it had removed.
pub(super) fn removed(
    old: &TrustDomainStatus,
    journal: &Journal,
    facts: &AuthorityConfig,
    now: Timestamp,
) -> Vec<RemovedAuthority> {
    let requested = || facts.requests.tainted.iter().chain(&facts.requests.revoked);
    let unknown = journal.unknown_names(requested());
    let hint = SignedDuration::try_from(facts.policy.refresh_hint).unwrap_or(SignedDuration::MAX);
    let gone = old.authorities.iter().map(|one| RemovedAuthority {
        kind: one.kind,
        id: one.id.clone(),
        subject_key_id: one.subject_key_id.clone(),
        removed_at: Time(now),
        // A status has whole seconds, and a window must not be shown too short.
        accepted_until: Time(whole_after(now.saturating_add(hint).unwrap_or(now))),
    });
    let known = old.removed.iter().cloned();
    known.chain(gone).filter(|one| unknown.iter().any(|name| is_named(one, name))).collect()
}

/// How far the requests are; none for what nobody asks for.
pub(super) fn conditions(
    object: &TrustDomain,
    journal: &Journal,
    facts: &AuthorityConfig,
    removed: &[RemovedAuthority],
    now: Timestamp,
) -> Vec<Condition> {
    let old = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let condition = |type_: &str, (holds, reason, message): (bool, Reason, String)| {
        let status = if holds { "True" } else { "False" };
        conditions::condition(type_, (status, reason, message), object.metadata.generation, old, now)
    };
    let rotation = facts.requests.after.map(|after| rotation(journal, after, now));
    let named = facts.requests.tainted.iter().chain(&facts.requests.revoked);
    let names = (named.clone().next().is_some()).then(|| names(&journal.unknown_names(named), removed));
    let rotation = rotation.map(|rotation| condition(ROTATION_COMPLETE, rotation));
    rotation.into_iter().chain(names.map(|names| condition(REQUESTED_AUTHORITIES_KNOWN, names))).collect()
}

fn rotation(journal: &Journal, after: Timestamp, now: Timestamp) -> (bool, Reason, String) {
    if after > now {
        return (false, Reason::Scheduled, format!("everything is replaced from {after} on"));
    }
    let is_old = |slot: &&AuthoritySlot| slot.times.prepared_at < after;
    let signing = KINDS.iter().flat_map(|(kind, _)| journal.slots(*kind).iter().map(move |slot| (kind, slot)));
    let signing = signing.filter(|(_, slot)| slot.state(now) == State::Active && is_old(slot));
    let waiting: Vec<String> = signing
        .map(|(kind, slot)| format!("{kind} authority {} signs until {} at the latest", slot.id, slot.times.retire_at))
        .collect();
    if waiting.is_empty() {
        return (true, Reason::Replaced, format!("whatever was prepared before {after} signs no longer"));
    }
    (false, Reason::Waiting, waiting.join("; "))
}

fn names(unknown: &[&str], removed: &[RemovedAuthority]) -> (bool, Reason, String) {
    let was_removed = |name: &str| removed.iter().any(|one| is_named(one, name));
    let strangers: Vec<&str> = unknown.iter().copied().filter(|name| !was_removed(name)).collect();
    if !strangers.is_empty() {
        let message = format!(
            "no authority is or was named {}: compare with status.authorities[].id and subjectKeyId",
            strangers.join(", ")
        );
        return (false, Reason::UnknownAuthority, message);
    }
    let gone = removed.iter().map(|one| {
        let (id, at, until) = (&one.id, one.removed_at.0, one.accepted_until.0);
        format!("{id} left the bundle at {at}; those who poll may accept what it signed until {until}")
    });
    let gone: Vec<String> = gone.collect();
    let message = if gone.is_empty() { "all of them are in the bundle".to_owned() } else { gone.join("; ") };
    (true, Reason::Known, message)
}

fn is_named(one: &RemovedAuthority, name: &str) -> bool {
    one.id == name || one.subject_key_id.as_deref().is_some_and(|hex| names_key_id(name, hex))
}
