//! Signs tokens: one key, and one header, which is the same for every token.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{MAX_TOKEN_LENGTH, der_to_fixed};
use crate::key::{KeyError, SignatureAlgorithm, Signer};

/// Signs tokens of one type with one key. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TokenSigner {
    key: Arc<dyn Signer>,
    /// base64url: the same for every token.
    header: Arc<str>,
}

/// Why no token was signed.
pub(crate) enum SignError {
    /// Longer than [`MAX_TOKEN_LENGTH`].
    TooLong,
    /// The key did not sign.
    Key(KeyError),
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

impl TokenSigner {
    pub(crate) fn new(key: impl Signer + 'static, kid: &str, typ: &str) -> Self {
        let header = encode(&Header { alg: key.algorithm().jose_name(), kid, typ });
        Self { key: Arc::new(key), header: Arc::from(header.as_str()) }
    }

    /// A token of these claims: JWS Compact Serialization.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<Zeroizing<String>, SignError> {
        sign_compact(&*self.key, &self.header, claims)
    }
}

/// A token whose header is `header`, in base64url: JWS Compact Serialization.
pub(crate) fn sign_compact(
    key: &dyn Signer,
    header: &str,
    claims: &impl Serialize,
) -> Result<Zeroizing<String>, SignError> {
    let input = Zeroizing::new(format!("{header}.{}", encode(claims)));
    let signature = URL_SAFE_NO_PAD.encode(signature_octets(key, input.as_bytes()).map_err(SignError::Key)?);
    // At its whole size from the start: growing would leave a copy behind that nobody wipes.
    let mut token = Zeroizing::new(String::with_capacity(input.len() + 1 + signature.len()));
    token.push_str(&input);
    token.push('.');
    token.push_str(&signature);
    if token.len() > MAX_TOKEN_LENGTH { Err(SignError::TooLong) } else { Ok(token) }
}

/// The signature of `message` in the form of JOSE (RFC 7518, sections 3.3 and 3.4).
pub(crate) fn signature_octets(key: &dyn Signer, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    let signature = key.sign(message)?;
    let coordinate = match key.algorithm() {
        SignatureAlgorithm::EcdsaP256Sha256 => 32,
        SignatureAlgorithm::EcdsaP384Sha384 => 48,
        SignatureAlgorithm::RsaPkcs1Sha256 => return Ok(signature),
    };
    der_to_fixed(&signature, coordinate)
        .ok_or_else(|| KeyError::Sign { reason: "not an ECDSA signature in DER".to_owned() })
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSigner(key redacted)")
    }
}

/// 128 random bits as 22 characters; `None` when the system's random number generator failed.
pub(crate) fn random_text() -> Option<String> {
    let mut random = [0; 16];
    rand::fill(&mut random).ok()?;
    Some(URL_SAFE_NO_PAD.encode(random))
}

/// base64url of the JSON of `value`, whose types always have one.
pub(crate) fn encode(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap_or_default())
}
