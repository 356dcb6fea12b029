//! Signed responses (httpsig, sections 3 and 3.2 to 3.4).

use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::signature::{ExpectedResponse, SignatureError, content_digest, verify_response};
use countersign_core::wimse::{Body, MemoryReplayCache, Proven, Request, Response, WitFieldError};

use crate::fixtures::{PATH, World, at, borrowed, issue, now};
use crate::signed::by_hand;

const NONCE: &str = "0123456789abcdef";
const STOCK: &str = "spiffe://example.org/ns/shop/sa/stock";
const PARAMS: &str = concat!(
    r#";created=1790000000;expires=1790000030;nonce="fedcba9876543210";tag="wimse-workload-to-workload""#,
    r#";wimse-req-nonce="0123456789abcdef""#
);

/// A server with its key and WIT, and what it answers.
struct Server {
    world: World,
    key: PrivateKey,
    wit: String,
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: &'static [u8],
    method: &'static str,
    authority: Option<&'static str>,
    path: &'static str,
}

impl Server {
    fn new() -> Self {
        let world = World::new();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let wit = issue(&world.authority, STOCK, &key);
        let fields = vec![("Workload-Identity-Token", wit.clone())];
        Self { world, key, wit, status: 200, fields, body: b"", method: "GET", authority: None, path: PATH }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn cover(&self) -> Vec<(&'static str, String)> {
        vec![
            ("@status", "200".to_owned()),
            ("@method;req", self.method.to_owned()),
            ("@path;req", PATH.to_owned()),
            ("@query;req", "?a=1".to_owned()),
            ("workload-identity-token", self.wit.clone()),
        ]
    }

    fn signed(self, cover: &[(&'static str, String)], params: &str) -> Self {
        let cover: Vec<(&str, &str)> = cover.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (input, signature) = by_hand(&cover, params, &self.key);
        self.with("Signature-Input", format!("wimse={input}")).with("Signature", format!("wimse={signature}"))
    }

    fn plainly_signed(self) -> Self {
        let cover = self.cover();
        self.signed(&cover, PARAMS)
    }

    fn verify(&self, required: bool) -> Result<Option<Proven>, SignatureError> {
        self.verify_for(NONCE, required, &MemoryReplayCache::new(10, 10))
    }

    fn verify_for(
        &self,
        nonce: &str,
        required: bool,
        replays: &MemoryReplayCache,
    ) -> Result<Option<Proven>, SignatureError> {
        let fields: Vec<_> = self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let fields = borrowed(&fields);
        let request = Request {
            method: self.method,
            path: self.path,
            query: Some("a=1"),
            authority: self.authority,
            fields: &[],
            body: Body::Empty,
        };
        let response = Response { status: self.status, fields: &fields, body: Body::Bytes(self.body) };
        let expected = ExpectedResponse { request_nonce: nonce, signature_required: required };
        verify_response(&request, &response, expected, &self.world.policy(), replays, now())
    }
}

#[test]
fn a_signed_response_that_keeps_every_rule_is_accepted() {
    let proven = Server::new().plainly_signed().verify(true).unwrap().unwrap();
    assert_eq!((proven.wit.id.to_string().as_str(), proven.audience, proven.expires_at), (STOCK, None, at(30)));
    assert_eq!(proven.bound, ["workload-identity-token"]);
}

// Httpsig, section 3.4: "The client MUST reject an unsigned response when" it required a signed one, and accept it otherwise.
#[test]
fn an_unsigned_response_is_refused_where_a_signed_one_was_required() {
    let server = Server::new();
    assert_eq!(server.verify(true).unwrap_err(), SignatureError::Missing);
    assert_eq!(server.verify(false).unwrap(), None);
    let others = Server::new().with("Signature-Input", r#"a=("@status");tag="x""#).with("Signature", "a=:AA==:");
    assert_eq!((others.verify(true).unwrap_err(), others.verify(false).unwrap()), (SignatureError::Missing, None));
}

// Httpsig, section 3.4: "Whenever a signed response is present, the client MUST validate it".
#[test]
fn a_signed_response_is_verified_even_where_none_was_required() {
    let mut server = Server::new().plainly_signed();
    server.status = 500;
    assert_eq!(server.verify(false).unwrap_err(), SignatureError::Signature);
}

// Httpsig, section 3: what a signed response covers.
#[test]
fn a_signature_that_covers_less_than_it_must_is_refused() {
    for (at, name) in
        ["\"@status\"", "\"@method\";req", "\"@path\";req", "\"@query\";req", "\"workload-identity-token\""]
            .iter()
            .enumerate()
    {
        let server = Server::new();
        let mut cover = server.cover();
        cover.remove(at);
        let error = server.signed(&cover, PARAMS).verify(true).unwrap_err();
        assert_eq!(error, SignatureError::NotCovered { name: (*name).to_owned() });
    }
    for (name, value) in [("content-type", "text/plain".to_owned()), ("content-digest", content_digest(b""))] {
        let server = Server::new();
        let cover = server.cover();
        let error = server.with(name, value.clone()).signed(&cover, PARAMS).verify(true).unwrap_err();
        assert_eq!(error, SignatureError::NotCovered { name: format!("{name:?}") });
        let server = Server::new();
        let cover = [server.cover(), vec![(name, value.clone())]].concat();
        assert!(server.with(name, value).signed(&cover, PARAMS).verify(true).is_ok());
    }
}

// `;req`: of the request, so that a response cannot be lifted onto another one.
#[test]
fn the_response_to_another_request_or_of_another_status_is_refused() {
    let good = Server::new().plainly_signed();
    let refused = |server: &Server| server.verify(true).unwrap_err();
    let mut server = Server { method: "POST", ..good };
    assert_eq!(refused(&server), SignatureError::Signature);
    (server.method, server.path) = ("GET", "/orders/8");
    assert_eq!(refused(&server), SignatureError::Signature);
    (server.path, server.status) = (PATH, 201);
    assert_eq!(refused(&server), SignatureError::Signature);
    server.status = 200;
    assert!(server.verify(true).is_ok());
    let server = Server::new();
    let cover: Vec<_> =
        server.cover().into_iter().map(|(name, value)| (name.trim_end_matches(";req"), value)).collect();
    assert!(matches!(server.signed(&cover, PARAMS).verify(true), Err(SignatureError::NotCovered { .. })));
}

// Httpsig, section 3.3: "the client MUST verify that `wimse-req-nonce` is present and equals the `nonce`".
#[test]
fn wimse_req_nonce_is_the_nonce_of_the_request() {
    let sign = |params: &str| {
        let server = Server::new();
        let cover = server.cover();
        server.signed(&cover, params)
    };
    let missing = sign(&PARAMS.replace(r#";wimse-req-nonce="0123456789abcdef""#, "")).verify(true).unwrap_err();
    assert_eq!(missing, SignatureError::Parameter { name: "wimse-req-nonce" });
    let replays = MemoryReplayCache::new(10, 10);
    let error = sign(PARAMS).verify_for("another-nonce-of-ours", true, &replays).unwrap_err();
    assert_eq!((error, replays.len()), (SignatureError::RequestNonce, 0));
    for (name, text) in [
        ("wimse-aud", r#";wimse-aud="https://orders.example.org/orders/7""#),
        ("wimse-sign-response", ";wimse-sign-response"),
        ("keyid", r#";keyid="k""#),
        ("alg", r#";alg="ed25519""#),
    ] {
        let error = sign(&format!("{PARAMS}{text}")).verify(true).unwrap_err();
        assert_eq!(error, SignatureError::ForbiddenParameter { name });
    }
    for (name, text) in [
        ("created", ";created=1790000000"),
        ("expires", ";expires=1790000030"),
        ("nonce", r#";nonce="fedcba9876543210""#),
    ] {
        let error = sign(&PARAMS.replacen(text, "", 1)).verify(true).unwrap_err();
        assert_eq!(error, SignatureError::Parameter { name });
    }
    let expired = sign(
        &PARAMS.replace("expires=1790000030", "expires=1790000000").replace("created=1790000000", "created=1789999990"),
    );
    assert_eq!(expired.verify(true).unwrap_err(), SignatureError::Expired(at(0)));
}

#[test]
fn a_response_is_accepted_once() {
    let server = Server::new().plainly_signed();
    let replays = MemoryReplayCache::new(10, 10);
    assert!(server.verify_for(NONCE, true, &replays).is_ok());
    assert_eq!(server.verify_for(NONCE, true, &replays).unwrap_err(), SignatureError::Replayed);
}

#[test]
fn the_body_of_a_response_is_the_one_whose_hash_was_signed() {
    let digest = content_digest(b"in stock");
    let server = Server::new();
    let cover = [server.cover(), vec![("content-digest", digest.clone())]].concat();
    let mut server = server.with("Content-Digest", digest).signed(&cover, PARAMS);
    server.body = b"in stock";
    assert!(server.verify(true).is_ok());
    server.body = b"sold out";
    assert_eq!(server.verify(true).unwrap_err(), SignatureError::DigestMismatch);
    let mut server = Server::new().plainly_signed();
    server.body = b"in stock";
    assert_eq!(server.verify(true).unwrap_err(), SignatureError::NoDigest);
}

#[test]
fn the_wit_of_the_server_is_required_and_its_key_signs() {
    let mut server = Server::new().plainly_signed();
    let wit = server.fields.remove(0);
    assert_eq!(server.verify(true).unwrap_err(), SignatureError::Wit(WitFieldError::Missing));
    // The WIT of another workload of the trust domain.
    server.fields.insert(0, (wit.0, server.world.wit.clone()));
    assert_eq!(server.verify(true).unwrap_err(), SignatureError::Signature);
}

// Httpsig, section 3: the response to CONNECT.
#[test]
fn the_response_to_connect_covers_the_authority_of_the_request() {
    let connect = |extra: &[(&'static str, &str)]| {
        let server = Server { method: "CONNECT", authority: Some("db.example.org:5432"), path: "", ..Server::new() };
        let mut cover = server.cover();
        cover.retain(|(name, _)| !matches!(*name, "@path;req" | "@query;req"));
        cover.extend(extra.iter().map(|(name, value)| (*name, (*value).to_owned())));
        server.signed(&cover, PARAMS).verify(true)
    };
    let authority = ("@authority;req", "db.example.org:5432");
    assert!(connect(&[authority]).is_ok());
    assert_eq!(connect(&[]).unwrap_err(), SignatureError::NotCovered { name: "\"@authority\";req".to_owned() });
    let forbidden = SignatureError::ForbiddenComponent { name: "\"@path\";req".to_owned() };
    assert_eq!(connect(&[authority, ("@path;req", "/")]).unwrap_err(), forbidden);
}
