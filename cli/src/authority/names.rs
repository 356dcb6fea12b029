//! Which authorities of a TrustDomain are meant by names, and how one is named.

use countersign_core::journal::names_key_id;
use countersign_crds::{AuthorityKind, AuthorityState, AuthorityStatus, RemovedAuthority, TrustDomain};
use countersign_reasons::Reason;

use super::plan::Refusal;

/// What names stand for, each once.
#[derive(Default)]
pub(super) struct Resolved<'a> {
    pub(super) named: Vec<&'a AuthorityStatus>,
    /// Those that have left the bundle already.
    pub(super) gone: Vec<&'a RemovedAuthority>,
}

pub(super) fn resolve<'a>(
    object: &'a TrustDomain,
    names: &[String],
    known: &'a [AuthorityStatus],
) -> Result<Resolved<'a>, Refusal> {
    let removed = object.status.as_ref().map(|status| status.removed.as_slice()).unwrap_or_default();
    let mut resolved = Resolved::default();
    for name in names {
        if let Some(one) = known.iter().find(|one| is_named(one, name)) {
            if !resolved.named.iter().any(|other| other.id == one.id) {
                resolved.named.push(one);
            }
        } else if let Some(one) = removed.iter().find(|one| is_named_removed(one, name)) {
            if !resolved.gone.iter().any(|other| other.id == one.id) {
                resolved.gone.push(one);
            }
        } else {
            let known: Vec<String> = known.iter().map(describe).collect();
            let trust_domain = object.trust_domain_name();
            let message = format!("{trust_domain} has no authority {name:?}; it has: {}", known.join("; "));
            return Err(Refusal { reason: Reason::UnknownAuthority, message });
        }
    }
    Ok(resolved)
}

fn is_named_removed(one: &RemovedAuthority, name: &str) -> bool {
    one.id == name || one.subject_key_id.as_deref().is_some_and(|hex| names_key_id(name, hex))
}

pub(super) fn all_ids(named: &[&AuthorityStatus], gone: &[&RemovedAuthority]) -> Vec<String> {
    named.iter().map(|one| one.id.clone()).chain(gone.iter().map(|one| one.id.clone())).collect()
}

pub(super) fn is_named(one: &AuthorityStatus, name: &str) -> bool {
    one.id == name || one.subject_key_id.as_deref().is_some_and(|hex| names_key_id(name, hex))
}

/// `x509 4f2a (active, key id 9b1c)`
pub(super) fn describe(one: &AuthorityStatus) -> String {
    let key = one.subject_key_id.as_ref().map(|hex| format!(", key id {hex}")).unwrap_or_default();
    format!("{} {} ({}{key})", kind(one.kind), one.id, state(one.state))
}

pub(super) fn kind(kind: AuthorityKind) -> &'static str {
    match kind {
        AuthorityKind::X509 => "x509",
        AuthorityKind::Jwt => "jwt",
        AuthorityKind::Wit => "wit",
    }
}

fn state(state: AuthorityState) -> &'static str {
    match state {
        AuthorityState::Prepared => "prepared",
        AuthorityState::Active => "active",
        AuthorityState::Retiring => "retiring",
        AuthorityState::Tainted => "tainted",
    }
}
