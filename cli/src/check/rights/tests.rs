//! What is asked for, and what follows from the answers.

use super::{Seen, category, needs};
use crate::{
    output::Mark,
    reading::{Reading, Right},
};

#[test]
fn what_components_need_is_read_from_the_manifests() {
    let texts: Vec<String> = needs("elsewhere")
        .iter()
        .map(|need| format!("{}/{}: {}", need.account.0, need.account.1, need.text()))
        .collect();
    for expected in [
        "elsewhere/countersign-operator: watch pods",
        "elsewhere/countersign-operator: patch trustdomains/status.countersign.dev",
        "elsewhere/countersign-operator: create secrets in countersign-authorities",
        "elsewhere/countersign-operator: update leases.coordination.k8s.io countersign-operator in elsewhere",
        "elsewhere/countersign-operator: get /openid/v1/jwks",
        "elsewhere/countersign-webhook: get secrets countersign-webhook-tls in elsewhere",
        "elsewhere/countersign-webhook-ca: patch mutatingwebhookconfigurations.admissionregistration.k8s.io countersign",
    ] {
        assert!(texts.iter().any(|text| text == expected), "{expected} is not in {texts:#?}");
    }
}

#[test]
fn a_missing_right_of_a_component_names_account_verb_and_resource() {
    let answers = needs("countersign-system").into_iter().map(|need| {
        let allowed = need.text() != "watch pods";
        (need, allowed)
    });
    let seen = Seen { components: Reading::Found(answers.collect()), view: vec![], administer: vec![] };
    let check = category(&seen).checks.remove(0);
    assert_eq!((check.mark, check.code()), (Mark::Failed, Some("CS5015")));
    assert!(check.message.contains("countersign-system/countersign-operator may not: watch pods"), "{check:?}");
}

#[test]
fn a_caller_without_rights_is_no_problem_of_the_installation() {
    let right = Right::new("create", "subjectaccessreviews.authorization.k8s.io", None);
    let view = Right::new("list", "pods", None);
    let seen = Seen {
        components: Reading::Forbidden(right),
        view: vec![(view.clone(), false)],
        administer: vec![(view, false)],
    };
    let category = category(&seen);
    let marks: Vec<Mark> = category.checks.iter().map(|check| check.mark).collect();
    assert_eq!(marks, [Mark::Skipped, Mark::Warning, Mark::Skipped], "{category:?}");
}

#[test]
fn what_may_not_be_read_leads_to_the_bindings_that_are_missing() {
    let in_system = Right::new("list", "leases.coordination.k8s.io", Some("countersign-system"));
    let view = vec![(Right::new("list", "pods", None), true), (in_system, false)];
    let seen = Seen { components: Reading::Found(vec![]), view, administer: vec![] };
    let hint = category(&seen).checks.remove(1).mends.join("\n");
    assert!(hint.contains("rolebinding NAME -n countersign-system --role=countersign-view"), "{hint}");
    assert!(!hint.contains("clusterrolebinding"), "{hint}");
}
