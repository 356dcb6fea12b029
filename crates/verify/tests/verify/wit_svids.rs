//! WIT-SVIDs of this workload, and the bundles by which those of others are verified.

use countersign_proto::workload::Witsvid;
use countersign_verify::{Source, SourceError};
use tonic::Status;

use crate::{
    fixtures::Domain,
    workload_api::{WorkloadApi, wit_message},
};

async fn source(api: &WorkloadApi) -> Source {
    Source::from_address(&api.address()).unwrap().ready().await.unwrap()
}

/// Waits until `holds`, which other tasks bring about.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_wit_svid_comes_with_the_key_that_it_confirms_and_is_replaced() {
    let domain = Domain::new("a.test");
    let (api, first, next) = (WorkloadApi::start(&domain), domain.wit("/workload"), domain.wit("/workload"));
    api.send_wit(Ok(vec![wit_message(&domain, "/workload", "", &first)]), &[&domain.bundle()]);
    let source = source(&api).await.ready_to_prove().await.unwrap();
    let svid = source.wit_svid().unwrap();
    assert_eq!((svid.token(), svid.id()), (first.token.as_str(), &domain.id("/workload")));
    assert_eq!(svid.key().public_key(), first.key.public_key());

    api.send_wit(Ok(vec![wit_message(&domain, "/workload", "", &next)]), &[&domain.bundle()]);
    until(|| source.wit_svid().is_ok_and(|svid| svid.token() == next.token)).await;
}

#[tokio::test]
async fn wits_are_asked_for_only_once_somebody_needs_them() {
    let domain = Domain::new("a.test");
    let api = WorkloadApi::start(&domain);
    api.send_wit(Ok(vec![wit_message(&domain, "/workload", "", &domain.wit("/workload"))]), &[&domain.bundle()]);
    let source = source(&api).await.ready_to_validate_jwt_svids().await.unwrap();
    assert_eq!(api.asked_for_wit(), 0);
    // A verifier needs no WIT-SVID of its own.
    let source = source.ready_to_verify_wits().await.unwrap();
    assert_eq!(source.wit_bundles().unwrap().len(), 1);
    assert_eq!(api.asked_for_wit(), 1);
    source.ready_to_prove().await.unwrap();
    assert_eq!(api.asked_for_wit(), 2);
}

// R12.
#[tokio::test]
async fn a_workload_api_without_wits_has_everything_else_and_is_asked_again() {
    let domain = Domain::new("a.test");
    let api = WorkloadApi::start(&domain);
    let source = source(&api).await;
    assert!(matches!(source.wit_svid(), Err(SourceError::Waiting { .. })));
    let is_told = |source: &Source| match source.wit_bundles() {
        Err(SourceError::Waiting { last: Some(last) }) => last.contains("Unimplemented"),
        _ => false,
    };
    until(|| is_told(&source)).await;
    assert!(source.x509_svid().is_ok());
    // It was upgraded.
    api.send_wit(Ok(vec![wit_message(&domain, "/workload", "", &domain.wit("/workload"))]), &[&domain.bundle()]);
    source.ready_to_prove().await.unwrap();
}

#[tokio::test]
async fn a_workload_whose_keys_stay_in_the_agent_verifies_others_and_has_no_wit_svid() {
    let domain = Domain::new("a.test");
    let api = WorkloadApi::start(&domain);
    api.send_wit(Err(Status::permission_denied("keys stay in the agent")), &[&domain.bundle()]);
    let source = source(&api).await.ready_to_verify_wits().await.unwrap();
    until(|| matches!(source.wit_svid(), Err(SourceError::NoIdentity { .. }))).await;
    assert!(source.wit_bundles().is_ok() && source.x509_svid().is_ok());
}

#[tokio::test]
async fn a_response_with_a_wit_svid_that_is_not_right_is_discarded_as_a_whole() {
    let (domain, other) = (Domain::new("a.test"), Domain::new("b.test"));
    let (right, foreign) = (domain.wit("/workload"), other.wit("/workload"));
    let message = wit_message(&domain, "/workload", "", &right);
    let other_key = domain.wit("/workload").key.jwk_json().unwrap().to_string();
    for wrong in [
        Witsvid { wit_svid_key: other_key, ..message.clone() },
        Witsvid { wit_svid_key: "{}".to_owned(), ..message.clone() },
        Witsvid { spiffe_id: domain.id("/other").to_string(), ..message.clone() },
        wit_message(&other, "/workload", "", &foreign),
        Witsvid { wit_svid: domain.token("/workload", "a", std::time::Duration::from_secs(60)), ..message.clone() },
    ] {
        let api = WorkloadApi::start(&domain);
        api.send_wit(Ok(vec![message.clone(), wrong.clone()]), &[&domain.bundle()]);
        let source = source(&api).await.ready_to_verify_wits().await.unwrap();
        let discarded = || match source.wit_svid() {
            Err(SourceError::Waiting { last: Some(last) }) => last.contains("discarded") || last.contains("clocks"),
            Ok(_) => panic!("used: {wrong:?}"),
            Err(_) => false,
        };
        until(discarded).await;
    }
}

// R10.
#[tokio::test]
async fn a_wit_svid_whose_authority_is_revoked_is_not_used() {
    let (domain, next) = (Domain::new("a.test"), Domain::new("a.test"));
    let api = WorkloadApi::start(&domain);
    let svids = || Ok(vec![wit_message(&domain, "/workload", "", &domain.wit("/workload"))]);
    api.send_wit(svids(), &[&domain.bundle()]);
    let source = source(&api).await.ready_to_prove().await.unwrap();
    assert!(source.wit_svid().is_ok());
    api.send_wit(svids(), &[&next.bundle()]);
    until(|| source.wit_svid().is_err()).await;
}

#[tokio::test]
async fn the_wit_svid_with_the_configured_hint_is_used() {
    let domain = Domain::new("a.test");
    let api = WorkloadApi::start(&domain);
    let (one, two) = (domain.wit("/workload"), domain.wit("/workload/public"));
    let messages =
        vec![wit_message(&domain, "/workload", "one", &one), wit_message(&domain, "/workload/public", "two", &two)];
    api.send_wit(Ok(messages), &[&domain.bundle()]);
    api.send(crate::workload_api::response(vec![crate::workload_api::message(
        &domain,
        "/workload/public",
        "two",
        &domain.svid("/workload/public"),
    )]));
    let source = Source::builder().hint("two").from_address(&api.address()).unwrap();
    assert_eq!(source.ready_to_prove().await.unwrap().wit_svid().unwrap().token(), two.token);
}
