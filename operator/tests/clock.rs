//! The operator's clock is an hour off. Nothing wrong is believed for it, by either side, and what is said names what to look
//! at. (Containers cannot be given a clock of their own: this is tested where time is a value.)

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use countersign_core::{
    bundle::{Bundle, BundleSet},
    csr::Csr,
    jwt::verify_jwt_svid,
    key::{KeyType, PrivateKey},
    x509::{X509SvidError, verify_x509_svid},
};
use countersign_proto::issuer::v1::{self, session_request};
use jiff::Timestamp;
use serde_json::json;
use support::{EPOCH, World, claims, confirm_views};
use tonic::Code;

const HOUR: i64 = 3_600;

/// A token of pod `orders-0` that the kubelet got this many seconds after the time that the operator takes for now.
fn token(world: &World, after: i64) -> String {
    let mut claims = claims("orders-0", "p0");
    for (claim, at) in [("iat", 0), ("nbf", 0), ("exp", HOUR)] {
        claims[claim] = json!(EPOCH + after + at);
    }
    world.signer.sign(&claims)
}

/// And a second: a life includes its last one.
fn hours_from_epoch(hours: i64) -> Timestamp {
    Timestamp::from_second(EPOCH + hours * HOUR + 1).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_operator_an_hour_behind_believes_no_token_and_points_at_the_clocks() {
    let world = World::new().await;
    let status = world.refusal(token(&world, HOUR)).await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("not valid before"), "{status}");
    assert!(status.message().contains("check the clocks"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_an_hour_ahead_believes_no_token_and_says_when_it_took_it_to_have_expired() {
    let world = World::new().await;
    let status = world.refusal(token(&world, -HOUR - 1)).await;
    assert_eq!(status.code(), Code::Unauthenticated);
    let expiry = Timestamp::from_second(EPOCH - 1).unwrap().to_string();
    assert!(status.message().contains(&expiry), "{status}");
}

/// A replica that was suspended for an hour wakes: the stream's token has run out, and nothing is signed for it. Once a token
/// of the new time comes, all goes on.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ends_streams_and_those_with_newer_tokens_go_on() {
    let world = World::new().await;
    let (stream, _) = world.opened().await;
    tokio::time::advance(Duration::from_secs(3_601)).await;
    assert_eq!(stream.end().await.code(), Code::Unauthenticated);
    confirm_views(&world.freshness);
    let mut stream = world.hello(token(&world, HOUR), "").await;
    assert_eq!(stream.state().await.identities.len(), 1);
}

/// What an operator signs whose clock is off is not yet, or no longer, valid to agents and peers, who judge by their own: they
/// keep what they have, and the reason names the clocks or the expiry.
#[tokio::test(start_paused = true)]
async fn a_certificate_signed_an_hour_off_is_believed_by_nobody_and_a_token_only_of_an_operator_ahead() {
    let world = World::new().await;
    // The authority is older than any skew.
    tokio::time::advance(Duration::from_secs(2 * 3_600)).await;
    confirm_views(&world.freshness);
    let token = token(&world, 2 * HOUR);
    let mut stream = world.hello(token.clone(), "").await;
    let state = stream.state().await;
    let csr = Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap();
    let answer = stream.x509(csr, token.clone()).await;
    let chain: Vec<&[u8]> = answer.certificates.iter().map(Vec::as_slice).collect();
    let jwt = stream.jwt(&["payments"], token).await.token;
    let bundles = bundles(&state);
    assert!(verify_x509_svid(&chain, &bundles, world.clock.now()).is_ok());

    // The operator is an hour ahead of the verifier, then an hour behind.
    let early = verify_x509_svid(&chain, &bundles, hours_from_epoch(1)).unwrap_err();
    assert!(matches!(early, X509SvidError::NotYetValid), "{early}");
    assert!(early.to_string().contains("check the clocks"), "{early}");
    let late = verify_x509_svid(&chain, &bundles, hours_from_epoch(3)).unwrap_err();
    assert!(matches!(late, X509SvidError::Expired), "{late}");
    // A JWT-SVID has an end and no beginning (JWT-SVID 3.3 asks for `exp` alone): to who is behind it lives that much longer.
    assert!(verify_jwt_svid(&jwt, "payments", &bundles, hours_from_epoch(1)).is_ok());
    assert!(verify_jwt_svid(&jwt, "payments", &bundles, hours_from_epoch(3)).is_err());
}

/// What a replica signs whose clock is off is good for nobody, and what it takes for the present state of the authorities is
/// not: its streams end so that their agents go to another, and it says which clock to set.
#[tokio::test(start_paused = true)]
async fn a_replica_whose_clock_is_off_the_api_servers_serves_nobody_until_it_agrees() {
    for (off, asks) in [(HOUR, true), (-HOUR, true), (HOUR, false)] {
        let world = World::new().await;
        let (stream, _) = world.opened().await;
        let now = world.clock.now();
        world.clock_skew.observe(now, now, Timestamp::from_second(now.as_second() - off).unwrap());

        if asks {
            let csr = Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap();
            let request = v1::X509Request { id: 7, csr, spiffe_id: String::new(), token: world.token() };
            stream.send(session_request::Kind::X509(request)).await;
        } else {
            world.authorities.configure(&[].into());
        }
        // A token of the API server's time is not valid by this one's; that is no fault of the pod's.
        let strange = world.refusal(token(&world, -2 * off)).await;
        for refused in [stream.end().await, world.refusal(world.token()).await, strange] {
            assert_eq!(refused.code(), Code::Unavailable, "{refused}");
            assert!(refused.message().contains("set the clock of its node"), "{refused}");
        }
        world.make_authority();
        world.clock_skew.observe(now, now, now);
        world.opened().await;
    }
}

fn bundles(state: &v1::State) -> BundleSet {
    let mut set = BundleSet::default();
    for bundle in &state.bundles {
        let trust_domain = bundle.trust_domain.parse().unwrap();
        set.insert(Bundle::parse(&trust_domain, &bundle.document).unwrap()).unwrap();
    }
    set
}
