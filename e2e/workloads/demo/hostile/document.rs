//! Bundle documents, good ones and others.

#![allow(clippy::indexing_slicing, reason = "the members of a JSON object are made by naming them")]

use std::fmt;

use anyhow::{Context as _, Result};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Map, Value, json};

/// How deep [`deep`] is: far beyond what a parser should recurse into.
const DEPTH: usize = 100_000;

/// A word that is in every answer.
#[derive(Clone, Debug)]
pub(super) struct Marker(String);

impl Marker {
    pub(super) fn new(word: String) -> Self {
        Self(word)
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A JWK set.
#[derive(Clone, Debug)]
pub(super) struct Document {
    keys: Vec<Value>,
    more: Map<String, Value>,
}

impl Document {
    /// With an authority for certificates and one for tokens, which are made for it.
    pub(super) fn honest(trust_domain: &str, marker: &Marker) -> Result<Self> {
        let keys = vec![x509_key(trust_domain, marker)?, jwt_key(&format!("{marker}-honest"))?];
        Ok(Self { keys, ..Self::empty(marker) })
    }

    /// Without keys.
    pub(super) fn empty(marker: &Marker) -> Self {
        let mut more = Map::new();
        more.insert("comment".to_owned(), marker.to_string().into());
        Self { keys: Vec::new(), more }.with_sequence(1).with_hint(300)
    }

    pub(super) fn with_jwt_keys(mut self, count: usize, marker: &Marker) -> Result<Self> {
        for number in 0..count {
            self.keys.push(jwt_key(&format!("{marker}-{number}"))?);
        }
        Ok(self)
    }

    /// Of uses and kinds that nobody knows, or of none.
    pub(super) fn with_unknown_keys(mut self, marker: &Marker) -> Self {
        let note = marker.to_string();
        self.keys.extend([
            json!({ "use": "later-svid", "kty": "EC", "crv": "P-256", "kid": note }),
            json!({ "use": "x509-svid", "kty": "OKP", "crv": note, "x5c": 17 }),
            json!({ "use": "jwt-svid", "kty": "AKP", "pub": note }),
            json!({ "use": ["x509-svid"], "kty": { "EC": note } }),
            json!({ "kid": note }),
            json!({}),
        ]);
        self
    }

    pub(super) fn with_the_last_key_twice(mut self) -> Self {
        self.keys.extend(self.keys.last().cloned());
        self
    }

    pub(super) fn with_sequence(self, sequence: u64) -> Self {
        self.with("spiffe_sequence", sequence)
    }

    pub(super) fn without_sequence(mut self) -> Self {
        self.more.remove("spiffe_sequence");
        self
    }

    /// In seconds.
    pub(super) fn with_hint(self, hint: u64) -> Self {
        self.with("spiffe_refresh_hint", hint)
    }

    fn with(mut self, member: &str, value: u64) -> Self {
        self.more.insert(member.to_owned(), value.into());
        self
    }

    pub(super) fn json(&self) -> String {
        let mut all = self.more.clone();
        all.insert("keys".to_owned(), self.keys.clone().into());
        Value::from(all).to_string()
    }
}

/// JSON that is nested too deeply.
pub(super) fn deep(marker: &Marker) -> String {
    format!(r#"{{"comment":"{marker}","keys":{}"{marker}"{}}}"#, "[".repeat(DEPTH), "]".repeat(DEPTH))
}

/// A new authority for certificates of a trust domain.
fn x509_key(trust_domain: &str, marker: &Marker) -> Result<Value> {
    let key = KeyPair::generate().context("make a key")?;
    let mut certificate = CertificateParams::default();
    certificate.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    certificate.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    certificate.distinguished_name.push(DnType::CommonName, marker.to_string());
    let id = format!("spiffe://{trust_domain}");
    certificate.subject_alt_names = vec![SanType::URI(id.try_into().context("a trust domain in a certificate")?)];
    let certificate = certificate.self_signed(&key).context("sign a certificate")?;
    let mut jwk = jwk(&key, "x509-svid")?;
    jwk["x5c"] = json!([STANDARD.encode(certificate.der())]);
    Ok(jwk)
}

/// A new key for tokens.
fn jwt_key(kid: &str) -> Result<Value> {
    let mut jwk = jwk(&KeyPair::generate().context("make a key")?, "jwt-svid")?;
    jwk["kid"] = json!(kid);
    Ok(jwk)
}

/// RFC 7518, section 6.2.1.
fn jwk(key: &KeyPair, usage: &str) -> Result<Value> {
    // SEC 1, section 2.3.3: uncompressed, the two coordinates after a byte.
    let point = key.public_key_raw().get(1..65).context("a point on P-256")?;
    let (x, y) = point.split_at(32);
    let encoded = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
    Ok(json!({ "use": usage, "kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y) }))
}
