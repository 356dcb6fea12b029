//! Webhooks that answer, and those that do not.

use kube::core::Status;

use super::{Answer, Seen, answer, checks, identity, pod, trial_namespace};
use crate::{
    output::Mark,
    reading::{Reading, Right},
};

fn status(code: u16, message: &str) -> Status {
    Status { code, message: message.to_owned(), ..Status::default() }
}

fn results(injection: Reading<Answer>, validation: Reading<Answer>) -> Vec<(Mark, Option<&'static str>)> {
    let seen = Seen { namespace: "shop".to_owned(), injection, validation };
    checks(&seen, "countersign-system").iter().map(|check| (check.mark, check.code())).collect()
}

fn accepted(names: &[&str]) -> Answer {
    Answer::Accepted { init_containers: names.iter().map(|name| (*name).to_owned()).collect() }
}

#[test]
fn the_trial_objects_can_be_made() {
    assert!(pod().is_some() && identity().is_some());
}

#[test]
fn a_webhook_that_injects_and_refuses_passes() {
    let refused = Answer::Refused("spec.x509.dnsNames[0]".to_owned());
    let results = results(Reading::Found(accepted(&["countersign-agent"])), Reading::Found(refused));
    assert_eq!(results, [(Mark::Ok, None), (Mark::Ok, None)]);
}

#[test]
fn a_webhook_that_is_not_called_fails_both() {
    let results = results(Reading::Found(accepted(&["other"])), Reading::Found(accepted(&[])));
    assert_eq!(results, [(Mark::Failed, Some("CS5025")), (Mark::Failed, Some("CS5026"))]);
}

#[test]
fn refusals_are_attributed_to_who_refuses() {
    let cases = [
        (
            403,
            r#"admission webhook "resources.countersign.dev" denied the request: spec.x509"#,
            Some(Answer::Refused as fn(String) -> Answer),
        ),
        (
            500,
            r#"Internal error occurred: failed calling webhook "pod.inject.countersign.dev": failed to call webhook: no endpoints available for service "countersign-webhook""#,
            Some(Answer::Unreachable as fn(String) -> Answer),
        ),
        (403, r#"pods "a" is forbidden: exceeded quota: q"#, Some(Answer::RefusedByAnother as fn(String) -> Answer)),
        (
            403,
            r#"pods is forbidden: User "u" cannot create resource "pods" in API group "" in the namespace "shop""#,
            None,
        ),
        (503, "the server is currently unable to handle the request", None),
    ];
    for (code, message, expected) in cases {
        let expected = expected.map(|make| make(message.to_owned()));
        assert_eq!(answer(&status(code, message)), expected, "{message}");
    }
}

#[test]
fn a_webhook_that_does_not_answer_fails_and_a_quota_is_a_warning() {
    let results = results(
        Reading::Found(Answer::Unreachable("no endpoints".to_owned())),
        Reading::Found(Answer::RefusedByAnother("exceeded quota".to_owned())),
    );
    assert_eq!(results, [(Mark::Failed, Some("CS5024")), (Mark::Warning, Some("CS5027"))]);
}

#[test]
fn a_certificate_that_is_not_accepted_leads_to_the_ca_and_not_to_the_network() {
    let hint = |message: &str| {
        let refused = || Reading::Found(Answer::Unreachable(message.to_owned()));
        let seen = Seen { namespace: "shop".to_owned(), injection: refused(), validation: refused() };
        checks(&seen, "countersign-system").remove(0).mends.join("\n")
    };
    assert!(
        hint("tls: failed to verify certificate: x509: certificate signed by unknown authority").contains("webhook-ca")
    );
    assert!(hint("no endpoints available for service").contains("network"));
}

#[test]
fn without_the_right_to_create_pods_the_trial_is_skipped() {
    let right = Right::new("create", "pods", Some("shop"));
    let results = results(Reading::Forbidden(right.clone()), Reading::Forbidden(right));
    assert_eq!(results, [(Mark::Skipped, Some("CS4100")); 2]);
}

#[test]
fn the_trial_is_where_the_webhook_is_called() {
    assert_eq!(trial_namespace("shop", "countersign-system"), "shop");
    for excluded in ["kube-system", "countersign-system", "countersign-authorities"] {
        assert_eq!(trial_namespace(excluded, "countersign-system"), "default");
    }
}
