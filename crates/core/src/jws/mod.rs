//! JSON Web Signatures as SPIFFE and Kubernetes use them: compact form, asymmetric algorithms, a
//! closed header.
//!
//! Signatures are checked by keys that are prepared once; claims and times are judged by the callers, to whom time is a value.

mod ecdsa;
mod jwk;
mod key;
mod signer;
mod unverified;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

pub(crate) use jwk::{Curve, JwkMembers, PublicJwk};
pub(crate) use key::{Algorithm, SignatureInvalid, VerificationKey};
pub(crate) use signer::{SignError, TokenSigner, encode, random_text, sign_compact, signature_octets};

pub use unverified::{NotAToken, UnverifiedToken};

use ecdsa::der_to_fixed;

/// The longest token that is looked at, in bytes.
pub(crate) const MAX_TOKEN_LENGTH: usize = 16 * 1024;

/// A token in compact form (RFC 7515, section 7.1), taken apart; nothing of it is trusted yet.
pub(crate) struct Compact<'a> {
    pub(crate) header: Header,
    /// JSON text.
    pub(crate) payload: Vec<u8>,
    signing_input: &'a [u8],
    /// base64url.
    signature: &'a str,
}

/// A header that holds `alg`, `kid` and `typ`, and nothing else (JWT-SVID, section 2).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) alg: String,
    pub(crate) kid: Option<String>,
    pub(crate) typ: Option<String>,
}

/// Why a text is no token in compact form.
pub(crate) enum CompactError {
    TooLong { length: usize },
    NotCompact,
    Header,
}

impl<'a> Compact<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, CompactError> {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(CompactError::TooLong { length: token.len() });
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CompactError::NotCompact);
        };
        let signing_input = token.as_bytes().get(..header.len() + 1 + payload.len()).unwrap_or_default();
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| CompactError::NotCompact)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| CompactError::NotCompact)?;
        let header = read_object(&header).ok_or(CompactError::Header)?;
        Ok(Self { header, payload, signing_input, signature })
    }

    /// Whether `key` made this token's signature by `algorithm`.
    pub(crate) fn verify(&self, key: &VerificationKey, algorithm: Algorithm) -> Result<(), SignatureInvalid> {
        let signature = URL_SAFE_NO_PAD.decode(self.signature).map_err(|_| SignatureInvalid)?;
        key.verify(algorithm, self.signing_input, &signature)
    }
}

/// Reads a JSON object, which is UTF-8 throughout (RFC 8259, section 8.1). `serde_json` does not look at the bytes of what it
/// skips, and reads a struct from an array of its members too: a text that others refuse would be read here.
pub(crate) fn read_object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_object = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok())?
}

/// `aud`: one text or a list of them (RFC 7519, section 4.1.3).
pub(crate) fn audiences<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(audience) => vec![audience],
        Audience::Many(audiences) => audiences,
    })
}

/// A NumericDate (RFC 7519, section 2): seconds since the epoch, whose fraction is dropped.
#[derive(Clone, Copy)]
pub(crate) struct NumericDate(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        // A cast of a float saturates; what saturates is no time and is refused next.
        let seconds = number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds.floor() as i64));
        seconds
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("not a time in seconds since 1970"))
    }
}

/// `text` of a stranger as it may stand in an error: short, with nothing that a terminal obeys.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 64;
    let shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() { format!("{shown:?}…") } else { format!("{shown:?}") }
}
