//! HTTP message signatures beside an independent implementation, the crate `wimsey-httpsig` 0.9: what it signs is verified here, and
//! what is signed here is verified there.
//!
//! Where it deviates:
//! - EdDSA beside ES256, and no other algorithm; WIT-SVID, section 3.2.
//! - It accepts a nonce of any length; httpsig, section 3: at least 64 bits. Its vectors and the draft's examples have 8 characters.
//! - It accepts `wimse-req-nonce` on requests; httpsig, section 3: for responses only.
//! - It signs the parameters as they were sent; RFC 9421, section 2.5, has them written anew. They differ only in spaces.
//! - Of a signature alone it requires the tag itself; several are searched. The result is the same.
//! - A life is bounded only where its caller asks for that (`max_age`), `@authority` and `@request-target` may be covered, and fields of
//!   one value may be there several times.
//! - WIT, body, replays and what must be covered are its caller's.

use std::time::Duration;

use countersign_core::wimse::signature::{
    ExpectedResponse, SignRequest, SignResponse, SignatureError, content_digest, sign_request, sign_response,
    verify_request, verify_response,
};
use countersign_core::wimse::{Audience, Body, Field, MemoryReplayCache, Policy, Request, Response};
use serde_json::Value;
use wimsey_httpsig::{
    HttpExchange, HttpRequest, HttpResponse, SignatureParams, SignedSignature, VerifyConfig, WIMSE_TAG,
    content_digest_sha256, request_components, response_components, sign, verify, verify_content_digest,
};

use crate::fixtures::{PATH, TARGET, World, now};
use crate::peer_tokens::{Peer, peer_key, seconds};

const BODY: &[u8] = br#"{"amount":100}"#;

fn http_request(method: &str, query: Option<&str>, wit: &str) -> HttpRequest {
    HttpRequest {
        method: method.to_owned(),
        authority: "orders.example.org".to_owned(),
        path: PATH.to_owned(),
        query: query.map(str::to_owned),
        headers: [
            ("Content-Type", "application/json"),
            ("Content-Digest", &content_digest(BODY)),
            ("Authorization", "Bearer x"),
            ("Txn-Token", "a.b.c"),
            ("Workload-Identity-Token", wit),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
    }
}

fn params() -> SignatureParams {
    SignatureParams {
        created: Some(seconds()),
        expires: Some(seconds() + 30),
        nonce: Some("0123456789abcdef".to_owned()),
        tag: Some(WIMSE_TAG.to_owned()),
        wimse_aud: Some(TARGET.to_owned()),
        ..SignatureParams::default()
    }
}

fn fields(headers: &[(String, String)]) -> Vec<Field<'_>> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

fn ours<'a>(request: &'a HttpRequest, fields: &'a [Field<'a>]) -> Request<'a> {
    let (method, path) = (request.method.as_str(), request.path.as_str());
    let (query, authority) = (request.query.as_deref(), Some(request.authority.as_str()));
    Request { method, path, query, authority, fields, body: Body::Bytes(BODY) }
}

fn with_signature(headers: &[(String, String)], signed: &SignedSignature) -> Vec<(String, String)> {
    let added = [("Signature-Input", &signed.signature_input), ("Signature", &signed.signature)];
    headers.iter().cloned().chain(added.map(|(name, value)| (name.to_owned(), value.clone()))).collect()
}

fn accept(peer: &Peer, request: &HttpRequest, params: &SignatureParams) -> Result<(), SignatureError> {
    let signed = sign(request, &request_components(request), params, "sig1", &peer.key).unwrap();
    let headers = with_signature(&request.headers, &signed);
    let (fields, audiences) = (fields(&headers), [Audience::exactly(TARGET)]);
    let bundles = peer.bundles();
    let policy = Policy::new(&bundles, &audiences);
    verify_request(&ours(request, &fields), &policy, &MemoryReplayCache::new(1, 1), now()).map(|_| ())
}

#[test]
fn its_requests_are_verified_here() {
    let peer = Peer::new();
    for (method, query) in [("POST", None), ("POST", Some("")), ("PUT", Some("a=1&b=%20")), ("CONNECT", None)] {
        assert_eq!(accept(&peer, &http_request(method, query, &peer.wit()), &params()), Ok(()), "{method} {query:?}");
    }
    let request = http_request("POST", None, &peer.wit());
    let short = SignatureParams { nonce: Some("abcd1111".to_owned()), ..params() };
    assert_eq!(accept(&peer, &request, &short), Err(SignatureError::Nonce { length: 8 }));
    let answer = SignatureParams { wimse_req_nonce: Some("x".to_owned()), ..params() };
    assert_eq!(accept(&peer, &request, &answer), Err(SignatureError::ForbiddenParameter { name: "wimse-req-nonce" }));
    let keyid = SignatureParams { keyid: Some("x".to_owned()), ..params() };
    assert_eq!(accept(&peer, &request, &keyid), Err(SignatureError::ForbiddenParameter { name: "keyid" }));
    assert_eq!(content_digest_sha256(BODY), content_digest(BODY));
}

fn config() -> VerifyConfig {
    VerifyConfig { now: Some(seconds()), expected_audiences: vec![TARGET.to_owned()], ..VerifyConfig::default() }
}

#[test]
fn our_requests_are_verified_there() {
    let world = World::new();
    let key = peer_key(&world.wit_claims()["cnf"]["jwk"]);
    for (method, query) in [("POST", None), ("POST", Some("")), ("PUT", Some("a=1&b=%20")), ("CONNECT", None)] {
        let request = http_request(method, query, &world.wit);
        let ask = SignRequest { audience: TARGET, life: Duration::from_secs(30), nonce: [7; 16], sign_response: true };
        let made = sign_request(&world.key, &ours(&request, &fields(&request.headers)), &ask, now()).unwrap();
        let required_components = request_components(&request);
        let config = VerifyConfig { wimse_profile: true, required_components, ..config() };
        let verified = verify(&request, &made.signature_input, &made.signature, &key, &config).unwrap();
        assert_eq!((verified.params.nonce, verified.params.wimse_sign_response), (Some(made.nonce), Some(true)));
        let other = HttpRequest { path: "/admin".to_owned(), authority: "x:1".to_owned(), ..request };
        assert!(verify(&other, &made.signature_input, &made.signature, &key, &config).is_err(), "{method}");
    }
    assert!(verify_content_digest(&content_digest(BODY), BODY));
}

fn http_response(wit: &str) -> HttpResponse {
    let headers = [("Content-Digest", content_digest(BODY)), ("Workload-Identity-Token", wit.to_owned())];
    HttpResponse { status: 200, headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec() }
}

#[test]
fn its_responses_are_verified_here() {
    let peer = Peer::new();
    for method in ["POST", "CONNECT"] {
        let (request, response) = (http_request(method, None, "x"), http_response(&peer.wit()));
        let exchange = HttpExchange { request: &request, response: &response };
        let params = SignatureParams { wimse_aud: None, wimse_req_nonce: Some("our-nonce".to_owned()), ..params() };
        let signed = sign(&exchange, &response_components(&exchange), &params, "sig1", &peer.key).unwrap();
        let headers = with_signature(&response.headers, &signed);
        let (of_request, of_response) = (fields(&request.headers), fields(&headers));
        let answer = Response { status: 200, fields: &of_response, body: Body::Bytes(BODY) };
        let bundles = peer.bundles();
        let verify = |nonce: &str| {
            let expected = ExpectedResponse { request_nonce: nonce, signature_required: true };
            let policy = Policy::new(&bundles, &[]);
            let replays = MemoryReplayCache::new(1, 1);
            verify_response(&ours(&request, &of_request), &answer, expected, &policy, &replays, now()).map(|_| ())
        };
        assert_eq!((verify("our-nonce"), verify("another")), (Ok(()), Err(SignatureError::RequestNonce)));
    }
}

#[test]
fn our_responses_are_verified_there() {
    let world = World::new();
    let key = peer_key(&world.wit_claims()["cnf"]["jwk"]);
    for method in ["POST", "CONNECT"] {
        let (request, response) = (http_request(method, None, "x"), http_response(&world.wit));
        let (of_request, of_response) = (fields(&request.headers), fields(&response.headers));
        let answer = Response { status: 200, fields: &of_response, body: Body::Bytes(BODY) };
        let ask = SignResponse { request_nonce: "our-nonce", life: Duration::from_secs(30), nonce: [8; 16] };
        let made = sign_response(&world.key, &ours(&request, &of_request), &answer, &ask, now()).unwrap();
        let exchange = HttpExchange { request: &request, response: &response };
        let config = VerifyConfig {
            wimse_response_profile: true,
            expected_req_nonce: Some("our-nonce".to_owned()),
            required_components: response_components(&exchange),
            expected_audiences: Vec::new(),
            ..config()
        };
        assert!(verify(&exchange, &made.signature_input, &made.signature, &key, &config).is_ok(), "{method}");
        let other = VerifyConfig { expected_req_nonce: Some("another".to_owned()), ..config };
        assert!(verify(&exchange, &made.signature_input, &made.signature, &key, &other).is_err());
    }
}

/// `conformance/httpsig/sign-es256.json` of its repository, format 6: built anew from its keys, which are bytes of one value, and
/// compared with the signature that is published there. Its nonce of 8 characters is refused here.
#[test]
fn its_vector_is_refused_for_the_length_of_its_nonce_alone() {
    let wit = concat!(
        "eyJ0eXAiOiJ3aXQrand0IiwiYWxnIjoiRVMyNTYiLCJraWQiOiJpc3N1ZXIta2V5LTEifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjo",
        "ic3BpZmZlOi8vZXhhbXBsZS5vcmcvd29ya2xvYWQvYXBpIiwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjE3MDAwMDM2MDAsImp0aSI6ImExYjJjMyIsImNuZiI6eyJ",
        "qd2siOnsiYWxnIjoiRVMyNTYiLCJrdHkiOiJFQyIsImNydiI6IlAtMjU2IiwieCI6ImNUWDZUOWs2Q2R6cGk3OW9HMHY4OVE1OERXTlU1aXI3Q184cU5DbGhlR1U",
        "iLCJ5IjoiN1V3ZkF0MjVBajdsYWxWLVVWMXFuY1pzRWZJZ2xnM2xsRE5OOVloM1p5USJ9fX0.5hgKPe0utuP-jgVBlaXzEfWSWyU_cCmKUVGEO6q159Hs-cH-Xog",
        "DwFVyl7qgKXf6uFTEmPtO2nQrY3G1jxyAiw",
    );
    let published = "sig=:MXR0J3qrWVwsSofw4SGr1sTL8npUxEYXMkzh5/ncN7ButxkTq5ScaaQmqkkaraI49o/0AcvTiCzzqfT9LbEh+A==:";
    let headers = [
        ("Content-Type", "application/json"),
        ("Content-Digest", "sha-256=:TUu+Wcaq0iRCzeGZpqil8DRAX814+1qBwk7ySd4cRfE=:"),
        ("Workload-Identity-Token", wit),
    ];
    let request = HttpRequest {
        method: "POST".to_owned(),
        authority: "service.example".to_owned(),
        path: "/transfer".to_owned(),
        query: None,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    };
    let peer = Peer::new();
    let audience = "https://service.example/transfer";
    let attempt = |nonce: &str| {
        let params = SignatureParams {
            created: Some(1_700_000_000),
            expires: Some(1_700_000_300),
            nonce: Some(nonce.to_owned()),
            wimse_aud: Some(audience.to_owned()),
            wimse_sign_response: Some(true),
            ..params()
        };
        let signed = sign(&request, &request_components(&request), &params, "sig", &peer.key).unwrap();
        let headers = with_signature(&request.headers, &signed);
        let (fields, audiences) = (fields(&headers), [Audience::exactly(audience)]);
        let issuer: Value =
            serde_json::to_value(wimsey_wit::Jwk::from_verifying_key(&peer.issuer.verifying_key())).unwrap();
        let bundles = crate::peer_tokens::bundles(&issuer, "issuer-key-1");
        let policy = Policy { max_proof_life: Duration::from_secs(300), ..Policy::new(&bundles, &audiences) };
        let now = jiff::Timestamp::from_second(1_700_000_100).unwrap();
        let verdict = verify_request(&ours(&request, &fields), &policy, &MemoryReplayCache::new(1, 1), now);
        (signed.signature, verdict.map(|_| ()))
    };
    assert_eq!(attempt("abcd1111"), (published.to_owned(), Err(SignatureError::Nonce { length: 8 })));
    assert_eq!(attempt("abcd1111efgh2222").1, Ok(()));
}
