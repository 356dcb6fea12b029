//! Requests and responses as they are signed (httpsig, section 3).

use std::time::Duration;

use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::signature::{
    ExpectedResponse, MakeSignatureError, SignRequest, SignResponse, SignedFields, content_digest, sign_request,
    sign_response, verify_request, verify_response,
};
use countersign_core::wimse::wpt::{WptRequest, make_wpt, verify_wpt};
use countersign_core::wimse::{Body, MemoryReplayCache, Request, Response, WitFieldError};

use crate::fixtures::{CART, TARGET, World, at, borrowed, issue, now, request};
use crate::signed::Sent;

fn ask() -> SignRequest<'static> {
    SignRequest { audience: TARGET, life: Duration::from_secs(30), nonce: [7; 16], sign_response: true }
}

fn sign(world: &World, sent: &Sent, ask: &SignRequest<'_>) -> Result<SignedFields, MakeSignatureError> {
    sent.request(|request| sign_request(&world.key, request, ask, now()))
}

fn add(sent: Sent, made: &SignedFields) -> Sent {
    sent.with("Signature-Input", made.signature_input.clone()).with("Signature", made.signature.clone())
}

#[test]
fn what_is_signed_is_verified() {
    let world = World::new();
    let body = b"{\"amount\":100}".to_vec();
    let plain = Sent::get(&world);
    let post = Sent { method: "POST", body: body.clone(), query: Some("a=1"), ..Sent::get(&world) };
    let post = post.with("Content-Type", "application/json").with("Content-Digest", content_digest(&body));
    let all = post.clone().with("Authorization", "Bearer x").with("Txn-Token", "a.b.c").with("X-Other", "1");
    let mut connect = Sent::get(&world);
    (connect.method, connect.path, connect.authority) =
        ("CONNECT", "/orders/7".to_owned(), Some("db.example.org:5432"));
    for sent in [plain, post, all, connect] {
        // Often enough that an ECDSA number with a leading zero turns up.
        for _ in 0..100 {
            let made = sign(&world, &sent, &ask()).unwrap();
            let proven = add(sent.clone(), &made).verify(&world).unwrap();
            assert_eq!((proven.nonce, proven.sign_response), (made.nonce, true));
        }
    }
}

#[test]
fn a_signature_says_what_the_draft_asks_for_and_no_more() {
    let world = World::new();
    let sent = Sent::get(&world).with("X-Other", "1").with("Txn-Token", "a.b.c");
    let made = sign(&world, &sent, &ask()).unwrap();
    let expected = concat!(
        r#"wimse=("@method" "@path" "@query" "txn-token" "workload-identity-token")"#,
        r#";created=1790000000;expires=1790000030;nonce="BwcHBwcHBwcHBwcHBwcHBw";tag="wimse-workload-to-workload""#,
        r#";wimse-aud="https://orders.example.org/orders/7";wimse-sign-response"#,
    );
    assert_eq!(made.signature_input, expected);
    let unasked = sign(&world, &sent, &SignRequest { sign_response: false, ..ask() }).unwrap();
    assert_eq!(unasked.signature_input, expected.trim_end_matches(";wimse-sign-response"));
}

#[test]
fn signatures_of_others_are_left_alone() {
    let world = World::new();
    let sent =
        Sent::get(&world).with("Signature-Input", r#"proxy=("@target-uri");tag="x""#).with("Signature", "proxy=:AA==:");
    let made = sign(&world, &sent, &ask()).unwrap();
    assert!(add(sent, &made).verify(&world).is_ok());
}

#[test]
fn a_message_that_would_be_refused_is_not_signed() {
    let world = World::new();
    let refused = |sent: &Sent| sign(&world, sent, &ask()).unwrap_err();
    let mut without = Sent::get(&world);
    without.fields.clear();
    assert_eq!(refused(&without), MakeSignatureError::Wit(WitFieldError::Missing));
    let made = sign(&world, &Sent::get(&world), &ask()).unwrap();
    assert_eq!(refused(&add(Sent::get(&world), &made)), MakeSignatureError::Signed);
    let label = Sent::get(&world).with("Signature", "wimse=:AA==:");
    assert_eq!(refused(&label), MakeSignatureError::Signed);
    let body = Sent { body: b"a".to_vec(), ..Sent::get(&world) };
    assert_eq!(refused(&body), MakeSignatureError::Digest);
    assert_eq!(refused(&body.with("Content-Digest", content_digest(b"b"))), MakeSignatureError::Digest);
    let twice = Sent::get(&world).with("Authorization", "a").with("Authorization", "b");
    assert_eq!(refused(&twice), MakeSignatureError::Component { name: "authorization".to_owned() });
    let line = Sent::get(&world).with("Content-Type", "a\nb");
    assert_eq!(refused(&line), MakeSignatureError::Component { name: "\"content-type\"".to_owned() });
    let connect = Sent { method: "CONNECT", ..Sent::get(&world) };
    assert_eq!(refused(&connect), MakeSignatureError::Component { name: "\"@authority\"".to_owned() });

    let refused = |ask: SignRequest<'_>| sign(&world, &Sent::get(&world), &ask).unwrap_err();
    for audience in ["", "https://a.example/?q", "https://a.example/#f", "https://\u{e9}.example"] {
        assert_eq!(refused(SignRequest { audience, ..ask() }), MakeSignatureError::Audience, "{audience}");
    }
    for life in [Duration::ZERO, Duration::MAX] {
        assert_eq!(refused(SignRequest { life, ..ask() }), MakeSignatureError::Lifetime);
    }
    let sent = Sent::get(&world);
    let expired = sent.request(|request| sign_request(&world.key, request, &ask(), at(3600)));
    assert_eq!(expired.unwrap_err(), MakeSignatureError::Expired(at(3600)));
    let other = PrivateKey::generate(KeyType::EcP256).unwrap();
    let by_other = sent.request(|request| sign_request(&other, request, &ask(), now()));
    assert_eq!(by_other.unwrap_err(), MakeSignatureError::KeyMismatch);
}

// Httpsig, sections 3.3 and 3.4: a whole exchange.
#[test]
fn a_signed_response_answers_a_signed_request() {
    let world = World::new();
    let server_key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let server_wit = issue(&world.authority, "spiffe://example.org/ns/shop/sa/orders", &server_key);
    let (client, server) = (MemoryReplayCache::new(10, 10), MemoryReplayCache::new(10, 10));

    let sent = Sent::get(&world);
    let made = sign(&world, &sent, &ask()).unwrap();
    add(sent, &made).request(|request| {
        let proven = verify_request(request, &world.policy(), &server, now()).unwrap();
        assert!(proven.sign_response && proven.sender.wit.id.to_string() == CART);

        let digest = content_digest(b"ok");
        let fields = [("workload-identity-token", server_wit.as_str()), ("content-digest", &digest)];
        let response = Response { status: 200, fields: &borrowed(&fields), body: Body::Bytes(b"ok") };
        let ask = SignResponse { request_nonce: &proven.nonce, life: Duration::from_secs(30), nonce: [8; 16] };
        let answer = sign_response(&server_key, request, &response, &ask, now()).unwrap();
        let fields =
            [&fields[..], &[("signature-input", &answer.signature_input), ("signature", &answer.signature)]].concat();
        let fields = borrowed(&fields);
        let response = Response { fields: &fields, ..response };

        let expected = ExpectedResponse { request_nonce: &made.nonce, signature_required: true };
        let of = |request: &Request<'_>| verify_response(request, &response, expected, &world.policy(), &client, now());
        assert!(of(&Request { path: "/admin", ..*request }).is_err());
        assert_eq!(of(request).unwrap().unwrap().wit.id.to_string(), "spiffe://example.org/ns/shop/sa/orders");
        assert!(sign_response(&server_key, request, &response, &ask, now()).is_err(), "it is signed");
        let none = SignResponse { request_nonce: "", ..ask };
        assert_eq!(
            sign_response(&server_key, request, &response, &none, now()).unwrap_err(),
            MakeSignatureError::Audience
        );
    });
}

// One workload is client and server, and its proofs are of several kinds: ids of one do not count for another.
#[test]
fn the_kinds_of_proofs_are_remembered_apart() {
    let world = World::new();
    let replays = MemoryReplayCache::new(3, 3);
    let life = Duration::from_secs(30);
    let made = sign(&world, &Sent::get(&world), &ask()).unwrap();
    let sent = add(Sent::get(&world), &made);
    assert!(sent.verify_by(&world, &replays).is_ok());

    let proof =
        WptRequest { wit: &world.wit, audience: TARGET, txn_token: None, other_tokens: &[], life, jti: [7; 16] };
    let proof = make_wpt(&world.key, &proof, now()).unwrap();
    let fields = borrowed(&[("authorization", &proof), ("workload-identity-token", &world.wit)]);
    assert!(verify_wpt(&request(&fields), &world.policy(), &replays, now()).is_ok());

    sent.request(|request| {
        let fields = borrowed(&[("workload-identity-token", &world.wit)]);
        let response = Response { status: 204, fields: &fields, body: Body::Empty };
        let ask = SignResponse { request_nonce: &made.nonce, life, nonce: [7; 16] };
        let answer = sign_response(&world.key, request, &response, &ask, now()).unwrap();
        assert_eq!(answer.nonce, made.nonce);
        let signed = borrowed(&[("signature-input", &answer.signature_input), ("signature", &answer.signature)]);
        let fields = [&fields[..], &signed].concat();
        let response = Response { fields: &fields, ..response };
        let expected = ExpectedResponse { request_nonce: &made.nonce, signature_required: true };
        assert!(verify_response(request, &response, expected, &world.policy(), &replays, now()).is_ok());
    });
}
