//! JWT-SVIDs: of this workload, from memory while they are fresh, and of callers.

use std::{sync::Arc, time::Duration};

use countersign_proto::workload::Jwtsvid;
use countersign_verify::{Authorizer, Source, source::TokenRequestError, validation::TokenError};
use tonic::Status;

use crate::{
    fixtures::{Domain, TTL},
    workload_api::{WorkloadApi, message, response},
};

const HOUR: Duration = TTL;

async fn source(domain: &Domain) -> (WorkloadApi, Source) {
    let api = WorkloadApi::start(domain);
    let source = Source::from_address(&api.address()).unwrap().ready().await.unwrap();
    (api, source)
}

/// The bundles come by a stream of their own.
async fn with_jwt_bundles(source: &Source) {
    while source.jwt_bundles().is_err() {
        tokio::task::yield_now().await;
    }
}

fn issuing(domain: &Arc<Domain>, ttl: Duration) -> impl Fn(Vec<String>) -> Result<Vec<Jwtsvid>, Status> + use<> {
    let domain = domain.clone();
    move |audiences| {
        let issued = |(path, hint): (&str, &str)| Jwtsvid {
            spiffe_id: domain.id(path).to_string(),
            svid: domain.token(path, &audiences[0], ttl),
            hint: hint.to_owned(),
        };
        Ok([("/workload", "internal"), ("/workload/public", "external")].map(issued).to_vec())
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_for_an_audience_and_anew_for_another() {
    let domain = Arc::new(Domain::new("a.test"));
    let (api, source) = source(&domain).await;
    api.answer_tokens(issuing(&domain, HOUR));
    let first = source.jwt_svid(&["one"]).await.unwrap();
    let again = source.jwt_svid(&["one"]).await.unwrap();
    assert_eq!((first.token(), first.id()), (again.token(), &domain.id("/workload")));
    assert_ne!(source.jwt_svid(&["two"]).await.unwrap().token(), first.token());
    assert_eq!(api.asked(), 2);
}

#[tokio::test]
async fn concurrent_requests_share_one_call() {
    let domain = Arc::new(Domain::new("a.test"));
    let (api, source) = source(&domain).await;
    api.answer_tokens(issuing(&domain, HOUR));
    let all = futures::future::join_all((0..50).map(|_| source.jwt_svid(&["one"]))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(api.asked(), 1);
}

#[tokio::test]
async fn a_token_of_a_key_that_was_revoked_is_not_served_from_memory() {
    let domain = Arc::new(Domain::new("a.test"));
    let (api, source) = source(&domain).await;
    api.answer_tokens(issuing(&domain, HOUR));
    let first = source.jwt_svid(&["one"]).await.unwrap();
    let next = Arc::new(Domain::new("a.test"));
    api.send_jwt(&[&next.bundle()]);
    let caller = Authorizer::anybody();
    while source.validate_jwt_svid(first.token(), "one", &caller).is_ok() {
        tokio::task::yield_now().await;
    }
    api.answer_tokens(issuing(&next, HOUR));
    let replaced = source.jwt_svid(&["one"]).await.unwrap();
    assert_ne!(replaced.token(), first.token());
    assert!(source.validate_jwt_svid(replaced.token(), "one", &caller).is_ok());
}

#[tokio::test]
async fn a_refusal_is_the_answer_to_all_who_ask_then() {
    let domain = Arc::new(Domain::new("a.test"));
    let (api, source) = source(&domain).await;
    api.answer_tokens(|_| Err(Status::permission_denied("withdrawn")));
    let all = futures::future::join_all((0..50).map(|_| source.jwt_svid(&["one"]))).await;
    let denied = TokenRequestError::Denied { reason: "withdrawn".to_owned() };
    assert!(all.iter().all(|answer| answer.as_ref().unwrap_err() == &denied));
    assert!(api.asked() < 5, "{} calls", api.asked());
}

#[tokio::test]
async fn a_token_is_not_that_of_an_identity_which_the_workload_has_no_longer() {
    let domain = Arc::new(Domain::new("a.test"));
    let (api, source) = source(&domain).await;
    api.answer_tokens(issuing(&domain, HOUR));
    assert_eq!(*source.jwt_svid(&["one"]).await.unwrap().id(), domain.id("/workload"));
    let mut changes = source.x509_changes();
    api.send(response(vec![message(&domain, "/renamed", "", &domain.svid("/renamed"))]));
    changes.changed().await.unwrap();
    let renamed = domain.clone();
    api.answer_tokens(move |audiences| {
        let svid = renamed.token("/renamed", &audiences[0], HOUR);
        Ok(vec![Jwtsvid { spiffe_id: renamed.id("/renamed").to_string(), svid, hint: String::new() }])
    });
    assert_eq!(*source.jwt_svid(&["one"]).await.unwrap().id(), domain.id("/renamed"));
}

#[tokio::test]
async fn what_is_not_the_token_that_was_asked_for_is_refused() {
    let domain = Arc::new(Domain::new("a.test"));
    let (api, source) = source(&domain).await;
    let id = |path: &str| domain.id(path).to_string();
    for (spiffe_id, token, problem) in [
        (id("/workload"), domain.token("/workload", "other", HOUR), "not for the audiences"),
        (id("/other"), domain.token("/workload", "one", HOUR), "another id than the response says"),
    ] {
        api.answer_tokens(move |_| {
            Ok(vec![Jwtsvid { spiffe_id: spiffe_id.clone(), svid: token.clone(), hint: String::new() }])
        });
        let error = source.fetch_jwt_svids(&["one"], None).await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    api.answer_tokens(issuing(&domain, HOUR));
    let other = domain.id("/other");
    let error = source.fetch_jwt_svids(&["one"], Some(&other)).await.unwrap_err().to_string();
    assert!(error.contains("another id than was asked for"), "{error}");
}

#[tokio::test]
async fn without_an_audience_nothing_is_asked() {
    let domain = Domain::new("a.test");
    let (api, source) = source(&domain).await;
    for audiences in [&[][..], &[""], &["one", ""]] {
        assert_eq!(source.jwt_svid(audiences).await.unwrap_err(), TokenRequestError::NoAudience);
    }
    assert_eq!(api.asked(), 0);
}

// R11, R77.
#[tokio::test]
async fn a_callers_token_is_validated_and_its_id_must_be_accepted() {
    let domain = Domain::new("a.test");
    let (_api, source) = source(&domain).await;
    with_jwt_bundles(&source).await;
    let token = domain.token("/client", "service", HOUR);
    let callers = Authorizer::id("spiffe://a.test/client").unwrap();
    assert_eq!(source.validate_jwt_svid(&token, "service", &callers).unwrap().id, domain.id("/client"));
    let others = Authorizer::id("spiffe://a.test/other").unwrap();
    let refused = source.validate_jwt_svid(&token, "service", &others).unwrap_err();
    assert_eq!(refused, TokenError::NotAccepted { id: domain.id("/client") });
    let error = source.validate_jwt_svid(&token, "elsewhere", &callers).unwrap_err().to_string();
    assert!(error.contains("elsewhere") && !error.contains(&token), "{error}");
}

#[tokio::test]
async fn a_token_is_not_shown_by_debug() {
    let domain = Arc::new(Domain::new("a.test"));
    let (api, source) = source(&domain).await;
    api.answer_tokens(issuing(&domain, HOUR));
    let svid = source.jwt_svid(&["one"]).await.unwrap();
    let signature = svid.token().rsplit('.').next().unwrap();
    assert!(!format!("{svid:?} {source:?}").contains(signature));
}

#[tokio::test]
async fn by_its_hint_another_identity_than_the_first_is_used() {
    let domain = Arc::new(Domain::new("a.test"));
    let api = WorkloadApi::start(&domain);
    let (internal, external) = (domain.svid("/workload"), domain.svid("/workload/public"));
    api.send(response(vec![
        message(&domain, "/workload", "internal", &internal),
        message(&domain, "/workload/public", "external", &external),
    ]));
    api.answer_tokens(issuing(&domain, HOUR));
    let first = Source::from_address(&api.address()).unwrap().ready().await.unwrap();
    assert_eq!(*first.x509_svid().unwrap().id(), domain.id("/workload"));
    let by_hint = Source::builder().hint("external").from_address(&api.address()).unwrap().ready().await.unwrap();
    assert_eq!(*by_hint.x509_svid().unwrap().id(), domain.id("/workload/public"));
    assert_eq!(*by_hint.jwt_svid(&["one"]).await.unwrap().id(), domain.id("/workload/public"));
    let unknown = Source::builder().hint("other").from_address(&api.address()).unwrap();
    while unknown.x509().is_err() {
        tokio::task::yield_now().await;
    }
    assert!(unknown.x509_svid().unwrap_err().to_string().contains("other"));
    assert!(unknown.jwt_svid(&["one"]).await.unwrap_err().to_string().contains("other"));
}
