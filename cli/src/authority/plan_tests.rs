//! What is written for each request, and what is said of it.

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
    assert!(tainted.contains("use revoke if its key has leaked") && tainted.contains("has never signed"), "{tainted}");
}
