//! What peers get: statuses, challenges and problem details, which never say which check failed (wpt, section 2.1; creds, section
//! 5.2; httpsig, section 3.6; RFC 9457).

use countersign_core::wimse::wpt::WptError;
use countersign_core::wimse::{Answer, Problem, WitFieldError};
use serde_json::{Value, json};

use crate::fixtures::{World, now, with};

// Wpt, section 2.1.
#[test]
fn every_failure_of_a_proof_is_the_same_401_with_a_challenge() {
    let world = World::new();
    let claims = world.proof_claims();
    let failures = [
        world.verify_claims(&with(claims.clone(), "aud", json!("x"))),
        world.verify_claims(&with(claims.clone(), "exp", json!(now().as_second()))),
        world.verify_claims(&with(claims.clone(), "jti", json!("x"))),
        world.verify_claims(&with(claims.clone(), "wth", json!("x"))),
        world.verify_claims(&with(claims, "oth", json!({"a": "b"}))),
        world.verify_fields(&[]),
        world.verify_fields(&[("authorization", "Bearer x")]),
    ];
    for failure in failures {
        let answer = failure.unwrap_err().answer();
        assert_eq!((answer.status, answer.challenge, answer.body()), (401, Some("WPT"), None));
    }
    assert_eq!(WptError::Replayed.answer(), Answer::WPT);
}

// Creds, section 5.2.
#[test]
fn every_failure_of_the_wit_is_the_same_400() {
    let world = World::new();
    let value = world.forge(&world.proof_claims());
    let expected = json!({"type": "about:blank", "title": "Bad Request", "status": 400});
    for wit in ["x", "e30.e30.e30", &World::new().wit] {
        let error = world.verify_fields(&[("authorization", &value), ("workload-identity-token", wit)]).unwrap_err();
        let answer = error.answer();
        assert_eq!((answer.status, answer.challenge), (400, None));
        assert_eq!(serde_json::from_slice::<Value>(&answer.body().unwrap()).unwrap(), expected);
    }
    assert_eq!(WptError::Wit(WitFieldError::Missing).answer(), Answer::WIT);
}

// Httpsig, section 3.6, and its registrations.
#[test]
fn problems_have_the_registered_types() {
    let of = |answer: Answer| {
        let body: Value = serde_json::from_slice(&answer.body().unwrap()).unwrap();
        assert_eq!(body["status"], answer.status);
        (answer.status, body["type"].as_str().unwrap().rsplit_once('#').unwrap().1.to_owned())
    };
    assert_eq!(of(Answer::SIGNATURE), (400, "wimse-signature-invalid".to_owned()));
    assert_eq!(of(Answer::SIGNED_RESPONSE_UNSUPPORTED), (501, "wimse-signed-response-unsupported".to_owned()));
    assert_eq!(of(Answer::SIGNED_RESPONSE_UNAVAILABLE), (400, "wimse-signed-response-unavailable".to_owned()));
    // The types by which an independent implementation knows them.
    assert_eq!(Problem::SignatureInvalid.uri(), wimsey_httpsig::PROBLEM_SIGNATURE_INVALID);
    assert_eq!(Problem::SignedResponseUnsupported.uri(), wimsey_httpsig::PROBLEM_SIGNED_RESPONSE_UNSUPPORTED);
    assert_eq!(Problem::SignedResponseUnavailable.uri(), wimsey_httpsig::PROBLEM_SIGNED_RESPONSE_UNAVAILABLE);
}
