//! A caller that proves who it is, and the requests that it sends, as their recipient sees them.

use countersign_core::key::Signer;
use countersign_verify::wimse::{
    Body, Field, Request,
    signature::{SignRequest, content_digest, sign_request},
    wpt::{WptRequest, make_wpt},
};
use jiff::Timestamp;

use crate::fixtures::Wit;

pub(crate) const ORIGIN: &str = "https://orders.example";
pub(crate) const PATH: &str = "/orders/7";
pub(crate) const LIFE: std::time::Duration = std::time::Duration::from_secs(30);

/// A request that owns its parts.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) query: Option<&'static str>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: &'static [u8],
}

impl Sent {
    pub(crate) fn get() -> Self {
        Self { method: "GET", path: PATH, query: None, headers: Vec::new(), body: b"" }
    }

    pub(crate) fn post(body: &'static [u8]) -> Self {
        Self { method: "POST", body, ..Self::get() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another value of a field.
    pub(crate) fn replacing(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(header, _)| header != name);
        self.with(name, value)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(header, _)| header == name).unwrap().1
    }

    pub(crate) fn fields(&self) -> Vec<Field<'_>> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    pub(crate) fn request<'a>(&'a self, fields: &'a [Field<'a>]) -> Request<'a> {
        let Self { method, path, query, body, .. } = *self;
        let body = if body.is_empty() { Body::Empty } else { Body::Bytes(body) };
        Request { method, path, query, authority: None, fields, body }
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn target(&self) -> String {
        format!("{ORIGIN}{}", self.path)
    }

    /// With the WIT, and a WPT for its own target.
    pub(crate) fn wpt(self, wit: &Wit) -> Self {
        let audience = self.target();
        self.wpt_for(wit, &wit.key, &audience, &[])
    }

    /// With the WIT, and a WPT by `key` that binds `other_tokens`, which are not added.
    pub(crate) fn wpt_for(self, wit: &Wit, key: &dyn Signer, audience: &str, other_tokens: &[(&str, &str)]) -> Self {
        let ask =
            WptRequest { wit: &wit.token, audience, txn_token: None, other_tokens, life: LIFE, jti: rand::random() };
        let proof = make_wpt(key, &ask, Timestamp::now()).unwrap();
        self.with("workload-identity-token", &wit.token).with("authorization", &proof)
    }

    /// With the WIT, `Content-Digest`, and a signature for its own target.
    pub(crate) fn signed(self, wit: &Wit, sign_response: bool) -> Self {
        let mut signed = self.with("workload-identity-token", &wit.token);
        if !signed.body.is_empty() {
            signed = signed.clone().with("content-digest", &content_digest(signed.body));
        }
        let audience = signed.target();
        let ask = SignRequest { audience: &audience, life: LIFE, nonce: rand::random(), sign_response };
        let fields = signed.fields();
        let made = sign_request(&wit.key, &signed.request(&fields), &ask, Timestamp::now()).unwrap();
        signed.clone().with("signature-input", &made.signature_input).with("signature", &made.signature)
    }
}
