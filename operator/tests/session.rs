//! Streams of the Issuer API with a real client: what an agent gets, and every way in which it is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use countersign_policy as policy;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use countersign_core::{
    bundle::{Bundle, BundleSet},
    csr::Csr,
    jwt::verify_jwt_svid,
    key::{KeyType, PrivateKey},
    x509::verify_x509_svid,
};
use countersign_issuer::events::PodEvent;
use countersign_issuer::freshness::View;
use countersign_proto::issuer::v1::{self, session_request};
use serde_json::json;
use support::{EPOCH, TokenSigner, World, claims, confirm_views, epoch, identity, orders, pod, refused, trust_domain};
use tonic::Code;

fn csr() -> Vec<u8> {
    Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap()
}

fn bundles(state: &v1::State) -> BundleSet {
    let mut set = BundleSet::default();
    for bundle in &state.bundles {
        let trust_domain = bundle.trust_domain.parse().unwrap();
        set.insert(Bundle::parse(&trust_domain, &bundle.document).unwrap()).unwrap();
    }
    set
}

// R74
#[tokio::test(start_paused = true)]
async fn a_pod_gets_its_state_then_its_certificate_and_its_token() {
    let world = World::new().await;
    let (mut stream, state) = world.opened().await;
    assert_eq!(state.identities[0].spiffe_id, "spiffe://example.org/ns/shop/sa/orders");
    assert_eq!(state.identities[0].jwt_audiences, ["payments", "billing/*"]);
    assert_eq!(state.control_plane_roots.len(), 2, "the one that signs and its spare");
    assert_eq!(state.reason, "");

    let answer = stream.x509(csr(), world.token()).await;
    assert_eq!((answer.id, answer.refusal), (7, None));
    let chain: Vec<&[u8]> = answer.certificates.iter().map(Vec::as_slice).collect();
    let id = verify_x509_svid(&chain, &bundles(&state), epoch()).unwrap();
    assert_eq!(id.to_string(), "spiffe://example.org/ns/shop/sa/orders");

    let answer = stream.jwt(&["billing/eu"], world.token()).await;
    assert_eq!((answer.id, answer.refusal), (8, None));
    let claims = verify_jwt_svid(&answer.token, "billing/eu", &bundles(&state), epoch()).unwrap();
    assert_eq!(claims.id, id);
}

/// The State says that somebody has asked, and an event when every certificate was issued anew.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_somebody_asks_for_is_pushed_and_confirmed_by_an_event() {
    let mut world = World::new().await;
    let (mut stream, state) = world.opened().await;
    assert_eq!(state.renewal, 0);
    let asked = |renewal: u64| {
        let mut pod = pod("orders-0", "p0");
        pod.facts.renewal = renewal;
        pod
    };
    world.index.update(|index| index.apply_pod(asked(1_790_000_000_000)));
    assert_eq!(stream.state().await.renewal, 1_790_000_000_000);
    stream.x509(csr(), world.token()).await;
    let renewed = loop {
        if let (_, PodEvent::Renewed(text)) = world.notice().await {
            break text;
        }
    };
    assert!(renewed.contains("2026-09-21T"), "{renewed}");
}

#[tokio::test(start_paused = true)]
async fn a_request_within_hello_is_answered_after_the_state() {
    let world = World::new().await;
    let mut stream = world.stream().await;
    let x509 = Some(v1::X509Request { id: 1, csr: csr(), ..Default::default() });
    stream.send(session_request::Kind::Hello(v1::Hello { token: world.token(), x509, ..Default::default() })).await;
    stream.state().await;
    let v1::session_response::Kind::X509(answer) = stream.next().await else { panic!("no certificate") };
    assert_eq!((answer.id, answer.certificates.len(), answer.refusal), (1, 1, None));
}

// R70: every way in which a token is not one of this pod, for us, now.
#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_prove_a_living_pod_opens_no_stream() {
    let world = World::new().await;
    let good = || claims("orders-0", "p0");
    let with = |pointer: &str, value: serde_json::Value| {
        let mut claims = good();
        *claims.pointer_mut(pointer).unwrap() = value;
        world.signer.sign(&claims)
    };
    let mut unbound = good();
    unbound["kubernetes.io"].as_object_mut().unwrap().remove("pod");
    let unsigned = {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
        let header = BASE64.encode(r#"{"alg":"none","kid":"cluster-key","typ":"JWT"}"#);
        format!("{header}.{}.", BASE64.encode(good().to_string()))
    };
    let cut = {
        let token = world.token();
        token[..token.rfind('.').unwrap() + 1].to_owned()
    };
    for (what, token, says) in [
        ("expired", with("/exp", json!(EPOCH - 1)), "expired"),
        ("another audience", with("/aud", json!(["vault"])), "audience"),
        ("two audiences", with("/aud", json!([support::AUDIENCE, "vault"])), "audience"),
        ("another issuer", with("/iss", json!("https://elsewhere")), "issuer"),
        ("unsigned", unsigned, "alg"),
        ("signature cut off", cut, ""),
        ("of another key", TokenSigner::new("cluster-key").sign(&good()), "signature"),
        ("of a deleted pod", world.signer.sign(&claims("gone-0", "p9")), "does not exist"),
        ("same name, other uid", world.signer.sign(&claims("orders-0", "p1")), "does not exist"),
        ("not bound to a pod", world.signer.sign(&unbound), "not bound to a pod"),
        ("empty", String::new(), ""),
    ] {
        let status = world.refusal(token.clone()).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status}");
        assert!(status.message().contains(says), "{what}: {status}");
        assert!(token.is_empty() || !status.message().contains(&token), "{what}: the token is in the message");
    }
    assert_eq!(world.metrics.issuer.sessions.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_account_is_not_the_pods_opens_no_stream() {
    let world = World::new().await;
    let mut claims = claims("orders-0", "p0");
    claims["sub"] = json!("system:serviceaccount:shop:admin");
    claims["kubernetes.io"]["serviceaccount"]["name"] = json!("admin");
    let status = world.refusal(world.signer.sign(&claims)).await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("is not that of the pod"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn each_request_needs_a_token_of_the_streams_pod() {
    let world = World::new().await;
    world.index.update(|index| index.apply_pod(pod("orders-1", "p1")));
    let (mut stream, _) = world.opened().await;
    let other = world.signer.sign(&claims("orders-1", "p1"));
    let (code, message) = refused(stream.x509(csr(), other.clone()).await.refusal);
    assert_eq!(code, Code::Unauthenticated);
    assert!(message.contains("another pod"), "{message}");
    assert_eq!(refused(stream.jwt(&["payments"], other).await.refusal).0, Code::Unauthenticated);
    assert_eq!(refused(stream.x509(csr(), String::new()).await.refusal).0, Code::Unauthenticated);
    assert_eq!(stream.x509(csr(), world.token()).await.refusal, None, "the stream lives on");
}

// The token before the CSR: what is in a request with a bad token is not looked at.
#[tokio::test(start_paused = true)]
async fn the_token_is_verified_before_the_csr_is_read() {
    let world = World::new().await;
    let (mut stream, _) = world.opened().await;
    let (code, _) = refused(stream.x509(b"no csr at all".to_vec(), "no token".to_owned()).await.refusal);
    assert_eq!(code, Code::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn a_csr_without_proof_or_of_an_unsupported_key_is_refused_and_the_stream_goes_on() {
    let world = World::new().await;
    let (mut stream, _) = world.opened().await;
    let mut forged = csr();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let ed25519 = {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        rcgen::CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    };
    for (csr, says) in [(forged, "CSR"), (ed25519, "Ed25519"), (vec![0; 9000], "longer"), (vec![], "CSR")] {
        let (code, message) = refused(stream.x509(csr, world.token()).await.refusal);
        assert_eq!(code, Code::InvalidArgument, "{message}");
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(stream.x509(csr(), world.token()).await.refusal, None);
}

#[tokio::test(start_paused = true)]
async fn nothing_but_the_key_is_taken_from_a_csr() {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let world = World::new().await;
    let (mut stream, _) = world.opened().await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI("spiffe://example.org/admin".try_into().unwrap()));
    params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    let csr = params.serialize_request(&key).unwrap().der().to_vec();

    let answer = stream.x509(csr, world.token()).await;
    let (_, leaf) = X509Certificate::from_der(&answer.certificates[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    let expected =
        [GeneralName::URI("spiffe://example.org/ns/shop/sa/orders"), GeneralName::DNSName("orders.shop.svc")];
    assert_eq!(names, expected);
    assert_eq!(leaf.subject().iter().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_identity_the_pod_does_not_hold_is_refused() {
    let world = World::new().await;
    let (mut stream, _) = world.opened().await;
    let answer = stream.x509_as(csr(), world.token(), "spiffe://example.org/ns/shop/sa/admin").await;
    let (code, message) = refused(answer.refusal);
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.contains("does not hold"), "{message}");
    assert!(answer.certificates.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_serves_one_identity_only() {
    let world = World::new().await;
    let second = identity("second", json!({"path": "/ns/{namespace}/second"}));
    world.index.update(|index| index.apply_identity(policy::workload_identity(&second)));
    let (mut stream, state) = world.opened().await;
    let [first, second] = [&state.identities[0].spiffe_id, &state.identities[1].spiffe_id];
    let csr = csr();
    assert_eq!(stream.x509_as(csr.clone(), world.token(), first).await.refusal, None);
    assert_eq!(stream.x509_as(csr.clone(), world.token(), first).await.refusal, None);
    let (code, message) = refused(stream.x509_as(csr, world.token(), second).await.refusal);
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("one identity only"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_audience_outside_the_identitys_is_refused() {
    let world = World::new().await;
    let (mut stream, _) = world.opened().await;
    for audiences in [&["vault"][..], &["payments", "vault"], &["billing"]] {
        let answer = stream.jwt(audiences, world.token()).await;
        let (code, message) = refused(answer.refusal);
        assert_eq!(code, Code::PermissionDenied);
        assert!(message.contains("may not ask for audience") && answer.token.is_empty(), "{message}");
    }
    // What is in place of a `*` the workload chooses, of plain characters and in bounds.
    assert_eq!(stream.jwt(&["billing/eu?of=a%20b"], world.token()).await.refusal, None);
    let long = format!("billing/{}", "a".repeat(505));
    for audience in ["billing/a b", "billing/*", "billing/a\n", "billing/\u{202e}", "billing/ö", "", &long] {
        let answer = stream.jwt(&["payments", audience], world.token()).await;
        let (code, message) = refused(answer.refusal);
        assert_eq!(code, Code::InvalidArgument, "{audience:?}");
        assert!(message.contains("is not acceptable: an audience") && answer.token.is_empty(), "{message}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
    assert_eq!(refused(stream.jwt(&[], world.token()).await.refusal).0, Code::InvalidArgument);
    assert_eq!(refused(stream.jwt(&["payments"; 17], world.token()).await.refusal).0, Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_session_of_an_unknown_container_is_refused() {
    let world = World::new().await;
    let status = world.hello(world.token(), "cache").await.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("no container \"cache\""), "{status}");
    assert!(!world.hello(world.token(), "app").await.state().await.identities.is_empty());
}

// R3
#[tokio::test(start_paused = true)]
async fn two_containers_of_a_pod_get_different_identities() {
    let world = World::new().await;
    world.index.update(|index| {
        for container in ["app", "proxy"] {
            let selector = json!({"serviceAccounts": ["orders"], "containers": [container]});
            index.apply_identity(policy::workload_identity(&identity(
                container,
                json!({"selector": selector, "path": format!("/ns/{{namespace}}/{container}")}),
            )));
        }
        index.remove_identity(&countersign_index::IdentityKey {
            namespace: "shop".to_owned(),
            name: "orders".to_owned(),
        });
    });
    for container in ["app", "proxy"] {
        let state = world.hello(world.token(), container).await.state().await;
        assert_eq!(state.identities[0].spiffe_id, format!("spiffe://example.org/ns/shop/{container}"));
        assert_eq!(state.identities.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_hello_ends_after_five_seconds() {
    let world = World::new().await;
    let stream = world.stream().await;
    let begin = tokio::time::Instant::now();
    let status = stream.end().await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("no Hello"), "{status}");
    assert_eq!(begin.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_begins_otherwise_or_says_hello_twice_ends() {
    let world = World::new().await;
    let stream = world.stream().await;
    stream.send(session_request::Kind::Jwt(v1::JwtRequest::default())).await;
    assert_eq!(stream.end().await.code(), Code::Unauthenticated);
    let (stream, _) = world.opened().await;
    stream.send(session_request::Kind::Hello(v1::Hello { token: world.token(), ..Default::default() })).await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_ends_the_stream() {
    let world = World::new().await;
    let (stream, _) = world.opened().await;
    let huge = v1::X509Request { id: 1, csr: vec![0; 70 * 1024], token: world.token(), ..Default::default() };
    stream.send(session_request::Kind::X509(huge)).await;
    let ended = stream.end().await;
    assert_eq!(ended.code(), Code::InvalidArgument);
    assert!(ended.message().contains("size limit"), "{}", ended.message());
}

#[tokio::test(start_paused = true)]
async fn a_newer_stream_of_the_session_displaces_the_older_with_an_event() {
    let mut world = World::new().await;
    let (older, _) = world.opened().await;
    let (mut newer, _) = world.opened().await;
    assert_eq!(older.end().await.code(), Code::Aborted);
    assert_eq!(newer.x509(csr(), world.token()).await.refusal, None);
    assert_eq!(world.metrics.issuer.superseded.get(), 1);
    let superseded = loop {
        if let (pod, PodEvent::Superseded(_)) = world.notice().await {
            break pod;
        }
    };
    assert_eq!(superseded.name, "orders-0");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_tokens_expiry_unless_a_newer_one_came() {
    let world = World::new().await;
    let begin = tokio::time::Instant::now();
    let (stream, _) = world.opened().await;
    let status = stream.end().await;
    assert_eq!((status.code(), begin.elapsed().as_secs()), (Code::Unauthenticated, 3600));

    let mut fresh = claims("orders-0", "p0");
    fresh["iat"] = json!(EPOCH + 3600);
    fresh["exp"] = json!(EPOCH + 7200);
    let first = world.signer.sign(&fresh);
    fresh["exp"] = json!(EPOCH + 9000);
    let second = world.signer.sign(&fresh);
    confirm_views(&world.freshness);
    let mut stream = world.hello(first, "").await;
    stream.state().await;
    stream.send(session_request::Kind::TokenRefresh(v1::TokenRefresh { token: second })).await;
    assert_eq!(stream.end().await.code(), Code::Unauthenticated);
    assert_eq!(begin.elapsed().as_secs(), 9000);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_does_not_verify_ends_the_stream() {
    let world = World::new().await;
    let (stream, _) = world.opened().await;
    stream.send(session_request::Kind::TokenRefresh(v1::TokenRefresh { token: "no".to_owned() })).await;
    assert_eq!(stream.end().await.code(), Code::Unauthenticated);
}

// Nothing depends on the order in which objects are applied, and nothing polls.
#[tokio::test(start_paused = true)]
async fn a_pod_without_identity_keeps_its_stream_and_is_told_at_once_when_it_gets_one() {
    let mut world = World::empty().await;
    world.index.update(|index| index.apply_pod(pod("orders-0", "p0")));
    let begin = tokio::time::Instant::now();
    let (mut stream, state) = world.opened().await;
    assert!(state.identities.is_empty());
    assert!(state.reason.contains("no WorkloadIdentity"), "{}", state.reason);
    let (code, _) = refused(stream.x509(csr(), world.token()).await.refusal);
    assert_eq!(code, Code::PermissionDenied);
    assert!(matches!(world.notice().await.1, PodEvent::NoIdentity(why) if why == state.reason));

    world.index.update(|index| index.apply_identity(policy::workload_identity(&orders())));
    assert!(stream.state().await.reason.contains("no TrustDomain example.org"));
    world.index.update(|index| index.apply_domain(policy::trust_domain(&trust_domain(), "")));
    assert!(stream.state().await.reason.contains("is not there yet"));
    world.make_authority();
    let state = stream.state().await;
    assert_eq!(state.identities.len(), 1);
    assert_eq!(stream.x509(csr(), world.token()).await.refusal, None);
    assert!(begin.elapsed() < Duration::from_millis(100), "no timer was waited for");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_change_the_state_is_not_pushed() {
    let world = World::new().await;
    let (mut stream, first) = world.opened().await;
    world.index.update(|index| {
        index.apply_namespace("shop", [("team".to_owned(), "b".to_owned())].into());
        index.apply_pod(pod("orders-1", "p1"));
        index.apply_domain(policy::trust_domain(&trust_domain(), ""));
    });
    // The next thing on the stream is the answer, not a state.
    assert_eq!(stream.x509(csr(), world.token()).await.refusal, None);
    world.index.update(|index| {
        index.apply_identity(policy::workload_identity(&identity("late", json!({"path": "/ns/{namespace}/late"}))));
    });
    let second = stream.state().await;
    assert_eq!(second.identities.len(), 2);
    assert_ne!(first.generation, second.generation);
}

// What is published wakes the streams a moment later, and a request can come between the two.
#[tokio::test(start_paused = true)]
async fn what_was_published_is_told_before_an_answer_that_rests_on_it() {
    let (world, publisher) = World::with_publisher().await;
    let (mut stream, before) = world.opened().await;
    publisher.send_modify(|published| Arc::make_mut(published).control_plane_roots.push(b"another".to_vec()));
    let request = v1::X509Request { id: 9, csr: csr(), token: world.token(), ..Default::default() };
    stream.send(session_request::Kind::X509(request)).await;
    let after = stream.state().await;
    assert_eq!(after.control_plane_roots.len(), before.control_plane_roots.len() + 1);
    let v1::session_response::Kind::X509(answer) = stream.next().await else { panic!("no certificate") };
    assert_eq!((answer.id, answer.refusal), (9, None));
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_withdrawn_is_gone_from_state_and_answers() {
    let world = World::new().await;
    let (mut stream, _) = world.opened().await;
    world.index.update(|index| index.apply_namespace("shop", [].into()));
    let mut domain = trust_domain();
    domain.spec.grants.clear();
    world.index.update(|index| index.apply_domain(policy::trust_domain(&domain, "")));
    let state = stream.state().await;
    assert!(state.identities.is_empty() && state.reason.contains("grants nothing"), "{}", state.reason);
    assert_eq!(refused(stream.x509(csr(), world.token()).await.refusal).0, Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_pod_is_deleted_or_has_ended() {
    let world = World::new().await;
    let (stream, _) = world.opened().await;
    world.index.update(|index| index.remove_pod("p0"));
    assert_eq!(stream.end().await.code(), Code::Unauthenticated);

    world.index.update(|index| index.apply_pod(pod("orders-0", "p0")));
    let (stream, _) = world.opened().await;
    let ended = countersign_index::PodRecord { ended: true, ..pod("orders-0", "p0") };
    world.index.update(|index| index.apply_pod(ended));
    assert_eq!(stream.end().await.code(), Code::Unauthenticated);
    assert_eq!(world.refusal(world.token()).await.code(), Code::Unauthenticated);
    assert_eq!(world.live.reads.load(Ordering::SeqCst), 0, "an ended pod is not read live");
}

#[tokio::test(start_paused = true)]
async fn a_pod_the_watch_has_not_told_of_is_read_live_once() {
    let world = World::new().await;
    world.live.pods.lock().unwrap().insert("orders-1".to_owned(), pod("orders-1", "p1"));
    let token = world.signer.sign(&claims("orders-1", "p1"));
    let state = world.hello(token.clone(), "").await.state().await;
    assert_eq!(state.identities.len(), 1);
    world.hello(token, "").await.state().await;
    assert_eq!(world.live.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn many_streams_of_an_unknown_pod_share_one_live_read() {
    let world = World::new().await;
    let token = world.signer.sign(&claims("orders-1", "p1"));
    world.live.pods.lock().unwrap().insert("orders-1".to_owned(), pod("orders-1", "p1"));
    let sessions = ["", "app", "proxy"]
        .map(|session| async { world.hello(token.clone(), session).await.state().await.identities.len() });
    assert_eq!(futures::future::join_all(sessions).await, [1, 1, 1]);
    assert_eq!(world.live.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn when_it_cannot_be_told_whether_a_pod_lives_the_agent_is_asked_to_come_back() {
    let world = World::new().await;
    world.live.broken.store(true, Ordering::SeqCst);
    let status = world.refusal(world.signer.sign(&claims("orders-1", "p1"))).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.metadata().get("retry-after-ms").is_some());
}

// "No identity" from an index that has not seen everything would be a guess.
#[tokio::test(start_paused = true)]
async fn before_the_cluster_was_listed_nobody_is_told_anything() {
    let world = World::new().await;
    let checks = &world.checks;
    for check in [&checks.pods, &checks.namespaces, &checks.trust_domains, &checks.workload_identities] {
        check.fail();
        assert_eq!(world.refusal(world.token()).await.code(), Code::Unavailable);
        check.pass();
    }
    world.opened().await;
}

#[tokio::test(start_paused = true)]
async fn an_absent_pod_is_not_read_again_at_once() {
    let world = World::new().await;
    let token = || world.signer.sign(&claims("orders-1", "p1"));
    for _ in 0..5 {
        assert_eq!(world.refusal(token()).await.code(), Code::Unauthenticated);
    }
    assert_eq!(world.live.reads.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(4)).await;
    world.live.pods.lock().unwrap().insert("orders-1".to_owned(), pod("orders-1", "p1"));
    assert_eq!(world.hello(token(), "").await.state().await.identities.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_token_key_is_fetched_at_most_every_ten_seconds() {
    let world = World::new().await;
    world.opened().await;
    let rotated = TokenSigner::new("rotated");
    let token = || rotated.sign(&claims("orders-0", "p0"));
    let fetched = || world.cluster_keys.fetches.load(Ordering::SeqCst);
    assert_eq!(fetched(), 1);
    for _ in 0..3 {
        assert_eq!(world.refusal(token()).await.code(), Code::Unauthenticated);
    }
    assert_eq!(fetched(), 1);
    world.cluster_keys.keys.lock().unwrap().push(rotated.jwk());
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(world.hello(token(), "").await.state().await.identities.len(), 1);
    assert_eq!(fetched(), 2);
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_on_a_stream_are_put_off() {
    let world = World::new().await;
    let (mut stream, _) = world.opened().await;
    let token = world.token();
    let mut put_off = None;
    for _ in 0..200 {
        if let Some(refusal) = stream.jwt(&["payments"], token.clone()).await.refusal {
            put_off = Some(refusal);
            break;
        }
    }
    let refusal = put_off.expect("there is a limit");
    assert_eq!(Code::from_i32(refusal.code), Code::Unavailable);
    assert!(refusal.retry_after_ms > 0);
    tokio::time::advance(Duration::from_millis(u64::from(refusal.retry_after_ms) + 1)).await;
    assert_eq!(stream.jwt(&["payments"], token).await.refusal, None);
}

#[tokio::test(start_paused = true)]
async fn on_shutdown_streams_end_with_a_hint_when_to_come_back() {
    let world = World::new().await;
    let (stream, _) = world.opened().await;
    world.shutdown.cancel();
    let status = stream.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.metadata().get("retry-after-ms").is_some());
}

#[tokio::test(start_paused = true)]
async fn with_a_view_of_the_authorities_that_is_too_old_nothing_is_signed() {
    let world = World::new().await;
    let (stream, _) = world.opened().await;
    tokio::time::advance(Duration::from_secs(15 * 60 + 1)).await;
    for view in View::ALL.into_iter().filter(|view| *view != View::Journals) {
        world.freshness.confirm(view, world.freshness.now());
    }
    // Streams end, since another replica's view may be fresh.
    let request = v1::X509Request { id: 7, csr: csr(), spiffe_id: String::new(), token: world.token() };
    stream.send(session_request::Kind::X509(request)).await;
    for refused in [stream.end().await, world.refusal(world.token()).await] {
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(
            refused.message().contains("view of the authorities' journals was last confirmed 901s ago"),
            "{refused}"
        );
        assert!(refused.metadata().get("retry-after-ms").is_some());
    }
    let text = world.metrics.encode().unwrap();
    assert!(text.contains("countersign_refused_total{kind=\"Session\",reason=\"StaleView\"} 2"), "{text}");
    confirm_views(&world.freshness);
    let (mut stream, _) = world.opened().await;
    assert_eq!(stream.x509(csr(), world.token()).await.refusal, None);
}

/// A key that was withdrawn verifies nothing once the keys are too old, whoever withheld the newer ones.
#[tokio::test(start_paused = true)]
async fn token_keys_that_are_too_old_verify_nothing_until_they_are_fetched_again() {
    let world = World::new().await;
    let keys = world.context.token_keys.clone();
    keys.verify(&world.token(), world.clock.now()).await.expect("a good token");
    let served = std::mem::take(&mut *world.cluster_keys.keys.lock().unwrap());
    *world.cluster_keys.keys.lock().unwrap() = vec![serde_json::json!("damaged")];
    tokio::time::advance(Duration::from_secs(15 * 60)).await;
    keys.verify(&world.token(), world.clock.now()).await.expect("within the bound");
    tokio::time::advance(Duration::from_secs(1)).await;
    let error = keys.verify(&world.token(), world.clock.now()).await.expect_err("they are too old");
    assert!(error.to_string().contains("view of the cluster's token keys was last confirmed 901s ago"), "{error}");
    *world.cluster_keys.keys.lock().unwrap() = served;
    tokio::time::advance(Duration::from_secs(10)).await;
    keys.verify(&world.token(), world.clock.now()).await.expect("fetched again");
}

/// A key that the API server no longer publishes is forgotten within five minutes and ten seconds, though nobody asks.
#[tokio::test(start_paused = true)]
async fn a_withdrawn_token_key_verifies_nothing_soon_after() {
    let world = World::new().await;
    let keys = world.context.token_keys.clone();
    tokio::spawn(async move { keys.keep_fresh().await });
    let keys = world.context.token_keys.clone();
    keys.verify(&world.token(), world.clock.now()).await.expect("a good token");
    *world.cluster_keys.keys.lock().unwrap() = vec![TokenSigner::new("another").jwk()];
    tokio::time::sleep(Duration::from_secs(310)).await;
    assert!(keys.verify(&world.token(), world.clock.now()).await.is_err());
}
