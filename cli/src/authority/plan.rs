//! What a request changes in a TrustDomain, and what will follow from it. Pure.

use countersign_core::journal::names_key_id;
use countersign_crds::{Authority, AuthorityKind, AuthorityState, AuthorityStatus, RemovedAuthority, TrustDomain};
use countersign_reasons::Reason;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

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

/// How soon an authority signs when all others of its kind were revoked or tainted.
const UNANNOUNCED: &str = "5s";

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

/// What names stand for, each once.
#[derive(Default)]
struct Resolved<'a> {
    named: Vec<&'a AuthorityStatus>,
    /// Those that have left the bundle already.
    gone: Vec<&'a RemovedAuthority>,
}

fn resolve<'a>(
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

fn has_left(one: &RemovedAuthority) -> String {
    format!("{} {} left the bundle at {} already.", kind(one.kind), one.id, moment(one.removed_at.0))
}

fn all_ids(named: &[&AuthorityStatus], gone: &[&RemovedAuthority]) -> Vec<String> {
    named.iter().map(|one| one.id.clone()).chain(gone.iter().map(|one| one.id.clone())).collect()
}

fn is_named(one: &AuthorityStatus, name: &str) -> bool {
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

pub(super) fn state(state: AuthorityState) -> &'static str {
    match state {
        AuthorityState::Prepared => "prepared",
        AuthorityState::Active => "active",
        AuthorityState::Retiring => "retiring",
        AuthorityState::Tainted => "tainted",
    }
}

fn taint_effects(
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

fn revoke_effects(named: &[&AuthorityStatus], known: &[AuthorityStatus], authority: &Authority) -> Vec<String> {
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

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

fn signed(span: std::time::Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::authority) fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    /// A TrustDomain with an active and a prepared authority of each of two kinds.
    pub(in crate::authority) fn domain(change: impl FnOnce(&mut Value)) -> TrustDomain {
        let at = |seconds: i64| (now() + jiff::SignedDuration::from_secs(seconds)).to_string();
        let one = |kind: &str, id: &str, state: &str| {
            json!({
                "kind": kind, "id": id, "state": state, "subjectKeyId": (kind == "x509").then(|| format!("ab{id}")),
                "activateAt": at(-60), "retireAt": at(60), "removeAt": at(120),
            })
        };
        let mut object = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
            "metadata": {"name": "shop.example", "resourceVersion": "42", "generation": 3},
            "spec": {"authority": {}},
            "status": {
                "observedGeneration": 3,
                "authorities": [
                    one("x509", "a1", "active"), one("x509", "a2", "prepared"),
                    one("jwt", "b1", "active"), one("jwt", "b2", "prepared"),
                ],
            },
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_rotation_sets_the_time_and_keeps_what_is_beside_it() {
        let plan = plan(&domain(|_| {}), &Request::Rotate, now()).unwrap();
        let patch = json!({
            "metadata": {"resourceVersion": "42"},
            "spec": {"authority": {"rotation": {"after": now().to_string()}}},
        });
        let goal = Goal::Replaced(names(&["a1", "a2", "b1", "b2"]));
        assert_eq!((plan.patch, plan.goal), (Some(patch), goal));
    }

    #[test]
    fn names_that_others_have_set_stay_in_the_list() {
        let object = domain(|object| object["spec"]["authority"]["tainted"] = json!(["old"]));
        let plan = plan(&object, &Request::Taint(names(&["AB:A1", "a1"])), now()).unwrap();
        let patch = plan.patch.unwrap();
        assert_eq!(patch["spec"]["authority"]["tainted"], json!(["old", "a1"]), "by key id and by id it is one");
        assert_eq!(patch["metadata"]["resourceVersion"], "42");
        assert_eq!(plan.goal, Goal::Unused(names(&["a1"])));
    }

    #[test]
    fn what_is_requested_already_is_not_written_again() {
        let object = domain(|object| object["spec"]["authority"]["revoked"] = json!(["aba1"]));
        let plan = plan(&object, &Request::Revoke(names(&["a1"])), now()).unwrap();
        assert_eq!((plan.patch, plan.goal), (None, Goal::Gone(names(&["a1"]), vec![AuthorityKind::X509])));
    }

    #[test]
    fn one_that_has_left_the_bundle_is_known_and_asks_for_nothing() {
        let object = domain(|object| {
            object["status"]["removed"] = json!([{
                "kind": "x509", "id": "a0", "subjectKeyId": "aba0", "removedAt": now().to_string(),
                "acceptedUntil": now().to_string(),
            }]);
        });
        for name in ["a0", "AB:A0"] {
            let plan = plan(&object, &Request::Revoke(names(&[name])), now()).unwrap();
            assert_eq!((plan.patch, plan.goal), (None, Goal::Gone(names(&["a0"]), Vec::new())));
            assert_eq!(plan.effects.len(), 1);
        }
        let both = plan(&object, &Request::Taint(names(&["a0", "a1"])), now()).unwrap();
        assert_eq!(both.patch.unwrap()["spec"]["authority"]["tainted"], json!(["a1"]));
    }

    #[test]
    fn an_unknown_authority_is_refused_with_those_that_are_known() {
        for request in [Request::Taint(names(&["a1", "zz"])), Request::Revoke(names(&["zz"]))] {
            let refusal = plan(&domain(|_| {}), &request, now()).unwrap_err();
            assert_eq!(refusal.reason, Reason::UnknownAuthority);
            for known in ["\"zz\"", "x509 a1 (active, key id aba1)", "jwt b2 (prepared)"] {
                assert!(refusal.message.contains(known), "{refusal:?}");
            }
        }
    }

    #[test]
    fn only_a_trust_domain_with_authorities_here_is_changed() {
        let remote = domain(|object| {
            object["spec"] = json!({"remote": {"namespaces": {}, "bootstrap": {"bundle": "{}"}}});
        });
        assert_eq!(plan(&remote, &Request::Rotate, now()).unwrap_err().reason, Reason::NotAuthorityHere);
        let new = domain(|object| object["status"] = json!({}));
        assert_eq!(plan(&new, &Request::Rotate, now()).unwrap_err().reason, Reason::AuthorityNotReady);
    }

    #[test]
    fn who_signs_next_is_said_before_anything_is_written() {
        let effects =
            |names_: &[&str]| plan(&domain(|_| {}), &Request::Revoke(names(names_)), now()).unwrap().effects.join("\n");
        assert!(effects(&["a1"]).contains("The spare a2 takes over"), "{}", effects(&["a1"]));
        assert!(effects(&["a1"]).contains("The spare a2 is kept"), "the leak may have taken both");
        assert!(effects(&["a1", "a2"]).contains("No other x509 authority is left"), "{}", effects(&["a1", "a2"]));
        assert!(!effects(&["a1", "a2"]).contains("is kept"));
        let tainted = plan(&domain(|_| {}), &Request::Taint(names(&["b1", "a2"])), now()).unwrap().effects.join("\n");
        assert!(
            tainted.contains("use revoke if its key has leaked") && tainted.contains("has never signed"),
            "{tainted}"
        );
    }
}
