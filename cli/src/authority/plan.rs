//! What a request changes in a TrustDomain, and what will follow from it. Pure.

use countersign_crds::{Authority, AuthorityKind, AuthorityState, AuthorityStatus, TrustDomain};
use countersign_reasons::Reason;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{
    effects::{has_left, revoke_effects, signed, taint_effects},
    names::{Resolved, all_ids, describe, is_named, resolve},
};
use crate::times::{moment, span};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Rotate,
    Taint(Vec<String>),
    Revoke(Vec<String>),
}

/// What is written, and what follows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// A JSON merge patch that holds for this version of the object alone. None: the object asks for it already.
    pub(super) patch: Option<Value>,
    /// For people, in order.
    pub(super) effects: Vec<String>,
    pub(super) goal: Goal,
}

/// When it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Whatever was prepared before signs no longer: these, which sign or are spares now.
    Replaced(Vec<String>),
    /// Nothing that the authorities with these ids signed is used: they have left the bundle, or their tokens only have to expire.
    Unused(Vec<String>),
    /// The authorities with these ids have left the bundle, and another one signs in the place of each.
    Gone(Vec<String>, Vec<AuthorityKind>),
}

/// Why nothing is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Request {
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Taint(_) => "taint",
            Self::Revoke(_) => "revoke",
        }
    }
}

/// Plans a request on an object as it was read.
pub(super) fn plan(object: &TrustDomain, request: &Request, now: Timestamp) -> Result<Plan, Refusal> {
    let name = object.trust_domain_name();
    let Some(authority) = &object.spec.authority else {
        let message = format!(
            "this cluster is not the authority of {name}, which is remote: ask those who run it, or remove the TrustDomain \
             to stop trusting it"
        );
        return Err(Refusal { reason: Reason::NotAuthorityHere, message });
    };
    let known = object.status.as_ref().map(|status| status.authorities.as_slice()).unwrap_or_default();
    if known.is_empty() {
        let message = format!(
            "{name} has no authority yet: its conditions say why (kubectl describe trustdomain {})",
            object.name_any()
        );
        return Err(Refusal { reason: Reason::AuthorityNotReady, message });
    }
    match request {
        Request::Rotate => Ok(rotation(object, authority, known, now)),
        Request::Taint(names) => {
            let Resolved { named, gone } = resolve(object, names, known)?;
            let effects = named.iter().flat_map(|one| taint_effects(one, &named, known, authority));
            let effects = gone.iter().map(|one| has_left(one)).chain(effects).collect();
            let plan = removal(object, "tainted", &authority.tainted, &named, effects);
            Ok(Plan { goal: Goal::Unused(all_ids(&named, &gone)), ..plan })
        }
        Request::Revoke(names) => {
            let Resolved { named, gone } = resolve(object, names, known)?;
            let effects = revoke_effects(&named, known, authority);
            let effects = gone.iter().map(|one| has_left(one)).chain(effects).collect();
            let plan = removal(object, "revoked", &authority.revoked, &named, effects);
            let mut kinds: Vec<AuthorityKind> = named.iter().map(|one| one.kind).collect();
            kinds.sort();
            kinds.dedup();
            Ok(Plan { goal: Goal::Gone(all_ids(&named, &gone), kinds), ..plan })
        }
    }
}

fn rotation(object: &TrustDomain, authority: &Authority, known: &[AuthorityStatus], now: Timestamp) -> Plan {
    let replaced: Vec<&AuthorityStatus> =
        known.iter().filter(|one| matches!(one.state, AuthorityState::Active | AuthorityState::Prepared)).collect();
    let mut effects: Vec<String> = replaced.iter().map(|one| format!("{} is replaced.", describe(one))).collect();
    effects.push(
        format!(
            "New authorities are published first, and sign once every workload has acknowledged them, after {} at the latest. \
             Credentials that were issued before stay valid.",
            span(signed(authority.max_delay()))
        ),
    );
    if let Some(after) =
        authority.rotation.as_ref().and_then(|rotation| rotation.after.as_ref()).filter(|after| after.0 > now)
    {
        effects.push(format!("It takes the place of the rotation that is scheduled for {}.", moment(after.0)));
    }
    let patch = json!({"spec": {"authority": {"rotation": {"after": moment(now)}}}});
    Plan {
        patch: Some(at_version(object, patch)),
        effects,
        goal: Goal::Replaced(replaced.iter().map(|one| one.id.clone()).collect()),
    }
}

fn removal(
    object: &TrustDomain,
    field: &str,
    present: &[String],
    named: &[&AuthorityStatus],
    effects: Vec<String>,
) -> Plan {
    let missing = named.iter().filter(|one| !present.iter().any(|name| is_named(one, name)));
    let missing: Vec<&str> = missing.map(|one| one.id.as_str()).collect();
    // A merge patch replaces a list: what others have set stays, since it holds for the version that was read alone.
    let all: Vec<&str> = present.iter().map(String::as_str).chain(missing.iter().copied()).collect();
    let patch = (!missing.is_empty()).then(|| at_version(object, json!({"spec": {"authority": {field: all}}})));
    Plan { patch, effects, goal: Goal::Unused(all_ids(named, &[])) }
}

/// The API server refuses it if the object was changed meanwhile.
fn at_version(object: &TrustDomain, mut patch: Value) -> Value {
    if let Some(members) = patch.as_object_mut() {
        members.insert("metadata".to_owned(), json!({"resourceVersion": object.resource_version()}));
    }
    patch
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
