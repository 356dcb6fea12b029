//! A trust domain, a workload of it, and forgeries.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::wimse::wpt::{WptError, verify_wpt};
use countersign_core::wimse::{Audience, Body, Field, MemoryReplayCache, Policy, Proven, Request};
use countersign_core::wit::{WitAuthority, WitRequest};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

pub(crate) const CART: &str = "spiffe://example.org/ns/shop/sa/cart";
pub(crate) const ORIGIN: &str = "https://orders.example.org";
pub(crate) const TARGET: &str = "https://orders.example.org/orders/7";
pub(crate) const PATH: &str = "/orders/7";
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// 2026-09-21, on a whole second.
pub(crate) fn now() -> Timestamp {
    at(0)
}

/// So many seconds after [`now`].
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

pub(crate) fn bundle(name: &str, wit: &[&WitAuthority]) -> Bundle {
    Bundle {
        trust_domain: name.parse().unwrap(),
        x509_authorities: Vec::new(),
        jwt_authorities: Vec::new(),
        wit_authorities: wit.iter().map(|authority| authority.verification_key().clone()).collect(),
        sequence: 1,
        refresh_hint: Duration::from_secs(300),
    }
}

/// A trust domain with one authority, and a workload with its key and WIT.
pub(crate) struct World {
    pub(crate) authority_key: PrivateKey,
    pub(crate) authority: WitAuthority,
    pub(crate) bundles: BundleSet,
    pub(crate) audiences: Vec<Audience>,
    pub(crate) key: PrivateKey,
    pub(crate) wit: String,
    pub(crate) replays: MemoryReplayCache,
}

impl World {
    pub(crate) fn new() -> Self {
        let authority_key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let authority = WitAuthority::new("w1", authority_key.clone()).unwrap();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let wit = issue(&authority, CART, &key);
        Self {
            bundles: BundleSet::new([bundle("example.org", &[&authority])]).unwrap(),
            audiences: vec![Audience::targets_of(ORIGIN).unwrap()],
            authority_key,
            authority,
            key,
            wit,
            replays: MemoryReplayCache::new(100, 100),
        }
    }

    pub(crate) fn policy(&self) -> Policy<'_> {
        Policy { context_fields: &["x-context"], ..Policy::new(&self.bundles, &self.audiences) }
    }

    /// A WIT of any header and claims, signed by the authority's key as ES256.
    pub(crate) fn forge_wit(&self, header: &Value, claims: &Value) -> String {
        token(header, claims, &self.authority_key)
    }

    /// The claims of the workload's WIT.
    pub(crate) fn wit_claims(&self) -> Value {
        let payload = self.wit.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    }

    /// The claims of a proof that keeps every rule, for the workload's WIT.
    pub(crate) fn proof_claims(&self) -> Value {
        json!({"aud": TARGET, "exp": now().as_second() + 30, "jti": "0123456789abcdef012345", "wth": hash(&self.wit)})
    }

    /// What becomes of a request with a proof of these claims.
    pub(crate) fn verify_claims(&self, claims: &Value) -> Result<Proven, WptError> {
        self.verify_fields(&[("authorization", &self.forge(claims)), ("workload-identity-token", &self.wit)])
    }

    /// `WPT` and a proof of these claims by the workload's key.
    pub(crate) fn forge(&self, claims: &Value) -> String {
        format!("WPT {}", token(&proof_header(), claims, &self.key))
    }

    /// What becomes of a request with these fields.
    pub(crate) fn verify_fields(&self, fields: &[(&str, &str)]) -> Result<Proven, WptError> {
        self.verify(&request(&borrowed(fields)))
    }

    pub(crate) fn verify(&self, request: &Request<'_>) -> Result<Proven, WptError> {
        verify_wpt(request, &self.policy(), &self.replays, now())
    }
}

pub(crate) fn issue(authority: &WitAuthority, id: &str, key: &PrivateKey) -> String {
    let request = WitRequest { id: &id.parse().unwrap(), confirmation: key.public_key(), ttl: HOUR };
    authority.issue(&request, now()).unwrap().token.to_string()
}

/// A request for [`PATH`] with these fields.
pub(crate) fn request<'a>(fields: &'a [Field<'a>]) -> Request<'a> {
    Request { method: "GET", path: PATH, query: None, authority: None, fields, body: Body::Empty }
}

pub(crate) fn borrowed<'a>(fields: &[(&'a str, &'a str)]) -> Vec<Field<'a>> {
    fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
}

pub(crate) fn wit_header() -> Value {
    json!({"alg": "ES256", "kid": "w1", "typ": "wit+jwt"})
}

pub(crate) fn proof_header() -> Value {
    json!({"alg": "ES256", "typ": "wpt+jwt"})
}

/// SHA-256 in base64url.
pub(crate) fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

/// A token of any header and claims, signed by `key` as ES256.
pub(crate) fn token(header: &Value, claims: &Value, key: &PrivateKey) -> String {
    token_by(header, claims, &EncodingKey::from_ec_der(key.pkcs8_der()), Algorithm::ES256)
}

pub(crate) fn token_by(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let input = format!("{}.{}", part(header), part(claims));
    format!("{input}.{}", jsonwebtoken::crypto::sign(input.as_bytes(), key, algorithm).unwrap())
}

/// One part of a token: JSON, or any text when it is a JSON string.
pub(crate) fn part(value: &Value) -> String {
    match value {
        Value::String(text) => URL_SAFE_NO_PAD.encode(text),
        value => URL_SAFE_NO_PAD.encode(value.to_string()),
    }
}

/// `claims` with another value of `name`, or without it.
pub(crate) fn with(mut claims: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}
