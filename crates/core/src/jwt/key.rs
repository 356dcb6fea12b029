//! The public half of a JWT authority, as a bundle carries it.

use std::fmt;

use serde_json::{Map, Value};

use crate::jws::{Curve, JwkMembers, PublicJwk, VerificationKey};
use crate::key::SubjectPublicKeyInfo;

/// A key that verifies JWT-SVIDs, prepared once, and its id.
#[derive(Clone)]
pub struct JwtVerificationKey {
    kid: String,
    jwk: PublicJwk,
    /// The JWK's `alg`, where it has one.
    alg: Option<String>,
    verifier: VerificationKey,
}

/// Why a JWK verifies no JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeyError {
    /// `kid` is missing or empty.
    #[error("JWT key has no kid; each key of use jwt-svid has one")]
    NoKeyId,
    /// `kty` is known, but what follows is no key that can verify.
    #[error(
        "JWT key is no RSA key of 2048 to 8192 bits and no point on P-256, P-384 or P-521, or its alg does not fit"
    )]
    Malformed,
}

impl JwtVerificationKey {
    /// The key `public_key` under the id `kid`.
    ///
    /// # Errors
    /// [`JwtKeyError`].
    pub fn new(kid: &str, public_key: &SubjectPublicKeyInfo) -> Result<Self, JwtKeyError> {
        let jwk = PublicJwk::from_spki(public_key).ok_or(JwtKeyError::Malformed)?;
        Self::prepare(kid, jwk, None)
    }

    /// The value of `kid` in the tokens that it verifies.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key as a JWK: `kty`, `kid`, its numbers, and `use` with the value `jwt-svid` (bundle,
    /// section 4.2.2).
    pub fn jwk(&self) -> Map<String, Value> {
        let mut members = self.jwk.members();
        members.insert("use".to_owned(), "jwt-svid".into());
        members.insert("kid".to_owned(), self.kid.as_str().into());
        if let Some(alg) = &self.alg {
            members.insert("alg".to_owned(), alg.as_str().into());
        }
        members
    }

    /// By which algorithm it signs: the JWK's `alg` or, without, the one of its curve; for RSA the one of our own authorities.
    pub(crate) fn algorithm(&self) -> &str {
        self.alg.as_deref().unwrap_or(match &self.jwk {
            PublicJwk::Ec { curve: Curve::P256, .. } => "ES256",
            PublicJwk::Ec { curve: Curve::P384, .. } => "ES384",
            PublicJwk::Ec { curve: Curve::P521, .. } => "ES512",
            PublicJwk::Rsa { .. } => "RS256",
        })
    }

    /// `None` when the kind of key is unknown here, and so to be ignored.
    pub(crate) fn from_members(members: &JwkMembers) -> Result<Option<Self>, JwtKeyError> {
        let Some(jwk) = PublicJwk::from_members(members).map_err(|_| JwtKeyError::Malformed)? else {
            return Ok(None);
        };
        let kid = members.kid.as_deref().unwrap_or_default();
        Self::prepare(kid, jwk, members.alg.clone()).map(Some)
    }

    pub(crate) fn public_jwk(&self) -> &PublicJwk {
        &self.jwk
    }

    pub(crate) fn verifier(&self) -> &VerificationKey {
        &self.verifier
    }

    fn prepare(kid: &str, jwk: PublicJwk, alg: Option<String>) -> Result<Self, JwtKeyError> {
        if kid.is_empty() {
            return Err(JwtKeyError::NoKeyId);
        }
        let verifier = VerificationKey::new(&jwk, alg.as_deref()).ok_or(JwtKeyError::Malformed)?;
        Ok(Self { kid: kid.to_owned(), jwk, alg, verifier })
    }
}

impl PartialEq for JwtVerificationKey {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.jwk == other.jwk && self.alg == other.alg
    }
}

impl Eq for JwtVerificationKey {}

impl fmt::Debug for JwtVerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtVerificationKey({}, {:?})", self.kid, self.verifier)
    }
}
