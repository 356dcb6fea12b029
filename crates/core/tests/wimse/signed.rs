//! Requests and responses that are signed by hand, so that each rule can be broken alone.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use countersign_core::key::PrivateKey;
use countersign_core::wimse::signature::{ProvenRequest, SignatureError, verify_request};
use countersign_core::wimse::{Body, Field, MemoryReplayCache, Request};
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::fixtures::{PATH, World, now};

/// The parameters of a signature that keeps every rule, of a request.
pub(crate) const PARAMS: &str = concat!(
    r#";created=1790000000;expires=1790000030;nonce="0123456789abcdef";tag="wimse-workload-to-workload""#,
    r#";wimse-aud="https://orders.example.org/orders/7""#
);

/// A request as it is sent.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) query: Option<&'static str>,
    pub(crate) authority: Option<&'static str>,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Sent {
    /// `GET` of [`PATH`] with the WIT.
    pub(crate) fn get(world: &World) -> Self {
        let fields = vec![("Workload-Identity-Token".to_owned(), world.wit.clone())];
        Self { method: "GET", path: PATH.to_owned(), query: None, authority: None, fields, body: Vec::new() }
    }

    /// With another field.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// With a signature by `key` under `label`, over these components and values, with these parameters.
    pub(crate) fn signed(self, label: &str, cover: &[(&str, &str)], params: &str, key: &PrivateKey) -> Self {
        let (input, signature) = by_hand(cover, params, key);
        self.with("Signature-Input", format!("{label}={input}")).with("Signature", format!("{label}={signature}"))
    }

    /// Signed by the workload as the profile asks for a `GET` without more fields.
    pub(crate) fn plainly_signed(self, world: &World) -> Self {
        let cover = plain(world);
        self.signed("wimse", &borrow(&cover), PARAMS, &world.key)
    }

    pub(crate) fn verify(&self, world: &World) -> Result<ProvenRequest, SignatureError> {
        self.verify_by(world, &MemoryReplayCache::new(10, 10))
    }

    pub(crate) fn verify_by(
        &self,
        world: &World,
        replays: &MemoryReplayCache,
    ) -> Result<ProvenRequest, SignatureError> {
        self.request(|request| verify_request(request, &world.policy(), replays, now()))
    }

    pub(crate) fn request<T>(&self, then: impl FnOnce(&Request<'_>) -> T) -> T {
        let fields: Vec<Field<'_>> =
            self.fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        then(&Request {
            method: self.method,
            path: &self.path,
            query: self.query,
            authority: self.authority,
            fields: &fields,
            body: Body::Bytes(&self.body),
        })
    }
}

/// What a signature of a `GET` without more fields covers, and the values.
pub(crate) fn plain(world: &World) -> Vec<(String, String)> {
    [("@method", "GET"), ("@path", PATH), ("@query", "?"), ("workload-identity-token", &world.wit)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

pub(crate) fn borrow(cover: &[(String, String)]) -> Vec<(&str, &str)> {
    cover.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// The member of `Signature-Input` and that of `Signature`, without label. A name may have parameters: `@method;req`.
pub(crate) fn by_hand(cover: &[(&str, &str)], params: &str, key: &PrivateKey) -> (String, String) {
    let id = |name: &str| match name.split_once(';') {
        Some((name, params)) => format!("\"{name}\";{params}"),
        None => format!("\"{name}\""),
    };
    let ids: Vec<String> = cover.iter().map(|(name, _)| id(name)).collect();
    let input = format!("({}){params}", ids.join(" "));
    let lines: String = cover.iter().map(|(name, value)| format!("{}: {value}\n", id(name))).collect();
    let base = format!("{lines}\"@signature-params\": {input}");
    let key = EncodingKey::from_ec_der(key.pkcs8_der());
    let signature = jsonwebtoken::crypto::sign(base.as_bytes(), &key, Algorithm::ES256).unwrap();
    (input, format!(":{}:", STANDARD.encode(URL_SAFE_NO_PAD.decode(signature).unwrap())))
}
