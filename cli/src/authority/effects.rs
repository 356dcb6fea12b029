//! What will follow from a request, for people to read before they go on. Pure.

use countersign_crds::{Authority, AuthorityKind, AuthorityState, AuthorityStatus, RemovedAuthority};

use super::names::{describe, kind};
use crate::times::{moment, span};

/// How soon an authority signs when all others of its kind were revoked or tainted.
const UNANNOUNCED: &str = "5s";

pub(super) fn taint_effects(
    one: &AuthorityStatus,
    named: &[&AuthorityStatus],
    known: &[AuthorityStatus],
    authority: &Authority,
) -> Vec<String> {
    if one.state == AuthorityState::Prepared {
        return vec![format!(
            "{} has never signed: it leaves the bundle at once, and another spare is made.",
            describe(one)
        )];
    }
    let mut effects = Vec::new();
    if one.state == AuthorityState::Active {
        effects.push(format!("{} signs nothing any more at once: {}.", describe(one), successor(one, named, known)));
    }
    effects.push(match one.kind {
        AuthorityKind::X509 => format!(
            "What {} signed is renewed by push. It leaves the bundle when every workload has renewed, after {} at the latest; \
             a workload that is offline for longer is then refused.",
            one.id,
            span(signed(authority.taint_max_delay().min(authority.longest_svid_life().duration())))
        ),
        AuthorityKind::Jwt | AuthorityKind::Wit => format!(
            "{} stays in the bundle until the last token that it may have signed has expired, {} from now: use revoke if its \
             key has leaked.",
            one.id,
            span(signed(authority.longest_svid_life().duration()))
        ),
    });
    effects
}

pub(super) fn revoke_effects(
    named: &[&AuthorityStatus],
    known: &[AuthorityStatus],
    authority: &Authority,
) -> Vec<String> {
    let mut effects: Vec<String> = named
        .iter()
        .map(|one| {
            let next = match one.state {
                AuthorityState::Active => format!(" {}.", capital(&successor(one, named, known))),
                AuthorityState::Prepared | AuthorityState::Retiring | AuthorityState::Tainted => String::new(),
            };
            format!(
                "{} leaves the bundle at once. What it signed is refused by everyone who has the new bundle.{next}",
                describe(one)
            )
        })
        .collect();
    if named.is_empty() {
        return effects;
    }
    effects.push(format!(
        "Connected workloads have new credentials within seconds, and may refuse each other until then. Those who poll the bundle may \
         accept what was signed for {} more.",
        span(signed(authority.bundle_refresh_hint.duration()))
    ));
    let spared =
        named.iter().filter(|one| one.state == AuthorityState::Active).find_map(|one| spare(one, named, known));
    if let Some(spare) = spared {
        effects.push(format!(
            "The spare {} is kept: its key is in the same Secret. If that Secret was read, revoke both in one command.",
            spare.id
        ));
    }
    effects.push("It cannot be undone.".to_owned());
    effects
}

pub(super) fn has_left(one: &RemovedAuthority) -> String {
    format!("{} {} left the bundle at {} already.", kind(one.kind), one.id, moment(one.removed_at.0))
}

fn successor(one: &AuthorityStatus, named: &[&AuthorityStatus], known: &[AuthorityStatus]) -> String {
    match spare(one, named, known) {
        Some(spare) => format!("the spare {} takes over, which every workload knows", spare.id),
        None => format!(
            "no other {} authority is left, so a new one signs after {UNANNOUNCED}, and workloads that do not know it yet refuse \
             what it signs",
            kind(one.kind)
        ),
    }
}

fn spare<'a>(
    one: &AuthorityStatus,
    named: &[&AuthorityStatus],
    known: &'a [AuthorityStatus],
) -> Option<&'a AuthorityStatus> {
    known.iter().find(|other| {
        other.kind == one.kind
            && other.state == AuthorityState::Prepared
            && !named.iter().any(|named| named.id == other.id)
    })
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

pub(super) fn signed(span: std::time::Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX)
}
