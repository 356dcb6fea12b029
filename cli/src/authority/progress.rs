//! How far a request is, by the status of its TrustDomain. Pure.

use countersign_crds::{
    AuthorityKind, AuthorityState, AuthorityStatus, TrustDomain, TrustDomainStatus,
    condition::{BUNDLE_ACKNOWLEDGED, ROTATION_COMPLETE, STALLED},
};
use countersign_reasons::Reason;
use serde::Serialize;

use super::{
    names::{describe, kind},
    plan::Goal,
};
use crate::{objects::condition_of, times::moment};

/// One step on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) done: bool,
    pub(super) message: String,
}

/// The steps of a request that is in `generation` of the object.
pub(super) fn steps(object: &TrustDomain, goal: &Goal, generation: i64) -> Vec<Step> {
    let empty = TrustDomainStatus::default();
    let status = object.status.as_ref().unwrap_or(&empty);
    let seen = status.observed_generation.is_some_and(|observed| observed >= generation);
    let stalled = condition_of(&status.conditions, STALLED).filter(|one| one.status == "True");
    let request = Step {
        name: "request",
        done: seen && stalled.is_none(),
        message: match (stalled, seen) {
            (Some(stalled), _) => format!("{} ({})", Reason::without_code(&stalled.message), stalled.reason),
            (None, true) => "the operator has it".to_owned(),
            (None, false) => "waiting for the operator".to_owned(),
        },
    };
    if !seen {
        return vec![request];
    }
    let authorities = match goal {
        Goal::Replaced(ids) => replaced(status, ids, generation),
        Goal::Unused(ids) => {
            gone(status, ids, |one| one.kind != AuthorityKind::X509 && one.state == AuthorityState::Tainted)
        }
        Goal::Gone(ids, kinds) => {
            let gone = gone(status, ids, |_| false);
            return vec![request, gone, successors(status, kinds), pods(status, generation)];
        }
    };
    vec![request, authorities, pods(status, generation)]
}

pub(super) fn is_complete(steps: &[Step]) -> bool {
    steps.len() > 1 && steps.iter().all(|step| step.done)
}

fn replaced(status: &TrustDomainStatus, ids: &[String], generation: i64) -> Step {
    let found =
        condition_of(&status.conditions, ROTATION_COMPLETE).filter(|one| one.observed_generation >= Some(generation));
    let done = found.is_some_and(|one| one.status == "True");
    let message = match found {
        None => "waiting for the condition RotationComplete".to_owned(),
        Some(found) if done => Reason::without_code(&found.message).to_owned(),
        Some(_) => still_signing(status, ids),
    };
    Step { name: "authorities", done, message }
}

/// Of each kind that an old authority signs for: until when, and how many know its successor.
fn still_signing(status: &TrustDomainStatus, ids: &[String]) -> String {
    let old = status.authorities.iter().filter(|one| one.state == AuthorityState::Active && ids.contains(&one.id));
    let each = old.map(|one| {
        let next = status
            .authorities
            .iter()
            .find(|next| next.kind == one.kind && next.state == AuthorityState::Prepared && !ids.contains(&next.id));
        let known = next.and_then(|next| next.acknowledged.as_deref()).unwrap_or("nobody");
        let until = moment(one.retire_at.0);
        format!("{} signs until {until} at the latest, successor known to {known}", kind(one.kind))
    });
    let each: Vec<String> = each.collect();
    if each.is_empty() { "the successors sign".to_owned() } else { each.join("; ") }
}

/// Those that `may_stay` are in the bundle without being used.
fn gone(status: &TrustDomainStatus, ids: &[String], may_stay: impl Fn(&AuthorityStatus) -> bool) -> Step {
    let left: Vec<&AuthorityStatus> = status.authorities.iter().filter(|one| ids.contains(&one.id)).collect();
    if !left.is_empty() {
        let each = left
            .iter()
            .map(|one| format!("{} is in the bundle until {} at the latest", describe(one), moment(one.remove_at.0)));
        let message = each.collect::<Vec<_>>().join("; ");
        return Step { name: "authorities", done: left.iter().all(|one| may_stay(one)), message };
    }
    let until = status.removed.iter().filter(|one| ids.contains(&one.id)).map(|one| one.accepted_until.0).max();
    let polled = until
        .map(|until| format!("; those who poll the bundle may accept what was signed until {}", moment(until)))
        .unwrap_or_default();
    Step { name: "authorities", done: true, message: format!("{} left the bundle{polled}", ids.join(", ")) }
}

/// Somebody signs, of each of these kinds.
fn successors(status: &TrustDomainStatus, kinds: &[AuthorityKind]) -> Step {
    let active = |wanted: &AuthorityKind| {
        status.authorities.iter().find(|one| one.kind == *wanted && one.state == AuthorityState::Active)
    };
    let missing: Vec<&str> = kinds.iter().filter(|wanted| active(wanted).is_none()).map(|one| kind(*one)).collect();
    if !missing.is_empty() {
        let message = format!("no {} authority signs yet", missing.join(", no "));
        return Step { name: "successors", done: false, message };
    }
    let all: Vec<String> =
        kinds.iter().filter_map(active).map(|one| format!("{} {}", kind(one.kind), one.id)).collect();
    let message = if all.is_empty() { "none is needed".to_owned() } else { format!("{} signs", all.join(", ")) };
    Step { name: "successors", done: true, message }
}

fn pods(status: &TrustDomainStatus, generation: i64) -> Step {
    let found =
        condition_of(&status.conditions, BUNDLE_ACKNOWLEDGED).filter(|one| one.observed_generation >= Some(generation));
    let done = found.is_some_and(|one| one.status == "True");
    let message = found
        .map_or_else(|| "waiting for acknowledgements".to_owned(), |one| Reason::without_code(&one.message).to_owned());
    Step { name: "pods", done, message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::plan::tests::{domain, now};
    use super::*;

    fn conditions(all: &[(&str, &str, i64)]) -> Value {
        all.iter()
            .map(|(type_, status, generation)| {
                json!({
                    "type": type_, "status": status, "reason": "R", "message": format!("{type_} says"),
                    "observedGeneration": generation, "lastTransitionTime": now().to_string(),
                })
            })
            .collect()
    }

    fn done(all: &[(&str, &str, i64)], goal: &Goal, change: impl FnOnce(&mut Value)) -> Vec<bool> {
        let object = domain(|object| {
            object["status"]["conditions"] = conditions(all);
            change(object);
        });
        steps(&object, goal, 3).iter().map(|step| step.done).collect()
    }

    #[test]
    fn what_an_older_generation_says_counts_for_nothing() {
        let all = [("RotationComplete", "True", 2), ("BundleAcknowledged", "True", 2)];
        assert_eq!(done(&all, &Goal::Replaced(Vec::new()), |_| {}), [true, false, false]);
        let unseen = |object: &mut Value| object["status"]["observedGeneration"] = 2.into();
        assert_eq!(done(&all, &Goal::Replaced(Vec::new()), unseen), [false]);
    }

    #[test]
    fn a_rotation_is_complete_when_the_last_pod_has_acknowledged_the_bundle() {
        let waiting = [("RotationComplete", "True", 3), ("BundleAcknowledged", "False", 3)];
        assert_eq!(done(&waiting, &Goal::Replaced(Vec::new()), |_| {}), [true, true, false]);
        let all = [("RotationComplete", "True", 3), ("BundleAcknowledged", "True", 3)];
        let object = domain(|object| object["status"]["conditions"] = conditions(&all));
        assert!(is_complete(&steps(&object, &Goal::Replaced(Vec::new()), 3)));
        assert!(!is_complete(&steps(&domain(|_| {}), &Goal::Replaced(Vec::new()), 4)));
    }

    #[test]
    fn an_authority_is_gone_when_the_status_has_it_no_longer() {
        let all = [("BundleAcknowledged", "True", 3)];
        let goal = Goal::Gone(vec!["a1".to_owned()], vec![AuthorityKind::X509]);
        assert_eq!(done(&all, &goal, |_| {}), [true, false, true, true]);
        let removed = |object: &mut Value| {
            let _ = object["status"]["authorities"].as_array_mut().unwrap().remove(0);
        };
        assert_eq!(done(&all, &goal, removed), [true, true, false, true], "the spare does not sign yet");
        let signing = |object: &mut Value| {
            removed(object);
            object["status"]["authorities"][0]["state"] = "active".into();
        };
        assert_eq!(done(&all, &goal, signing), [true; 4]);
    }

    #[test]
    fn a_tainted_key_of_tokens_is_waited_for_only_until_nobody_uses_it() {
        let all = [("BundleAcknowledged", "True", 3)];
        let tainted = |id: &str, index: usize| {
            let taint = move |object: &mut Value| object["status"]["authorities"][index]["state"] = "tainted".into();
            done(&all, &Goal::Unused(vec![id.to_owned()]), taint)
        };
        assert_eq!(tainted("a1", 0), [true, false, true], "a certificate's authority leaves when all have renewed");
        assert_eq!(tainted("b1", 2), [true, true, true]);
        assert_eq!(done(&all, &Goal::Unused(vec!["b1".to_owned()]), |_| {}), [true, false, true]);
    }

    #[test]
    fn a_trust_domain_that_is_stalled_is_not_waited_for_silently() {
        assert!(!done(&[("Stalled", "True", 3)], &Goal::Replaced(Vec::new()), |_| {})[0]);
    }
}
