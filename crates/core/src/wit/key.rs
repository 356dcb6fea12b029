//! The public half of a WIT authority, as a bundle carries it.

use std::fmt;

use serde_json::{Map, Value};

use crate::jws::{JwkMembers, PublicJwk, VerificationKey};
use crate::jwt::{JwtKeyError, JwtVerificationKey};
use crate::key::SubjectPublicKeyInfo;

/// A key that verifies WIT-SVIDs, and its id. It is not one that verifies JWT-SVIDs, though it is made alike: a WIT must not pass as a
/// bearer token, nor the reverse.
#[derive(Clone, PartialEq, Eq)]
pub struct WitVerificationKey(JwtVerificationKey);

impl WitVerificationKey {
    /// The key `public_key` under the id `kid`.
    ///
    /// # Errors
    /// When `kid` is empty, or the key is of a kind that verifies no tokens.
    pub fn new(kid: &str, public_key: &SubjectPublicKeyInfo) -> Result<Self, JwtKeyError> {
        JwtVerificationKey::new(kid, public_key).map(Self)
    }

    /// The value of `kid` in the tokens that it verifies.
    pub fn kid(&self) -> &str {
        self.0.kid()
    }

    /// The key as a JWK, with `use` with the value `wit-svid` (WIT-SVID, section 6.1).
    pub fn jwk(&self) -> Map<String, Value> {
        let mut members = self.0.jwk();
        members.insert("use".to_owned(), "wit-svid".into());
        members
    }

    /// `None` when the kind of key is unknown here, and so to be ignored.
    pub(crate) fn from_members(members: &JwkMembers) -> Result<Option<Self>, JwtKeyError> {
        Ok(JwtVerificationKey::from_members(members)?.map(Self))
    }

    pub(crate) fn public_jwk(&self) -> &PublicJwk {
        self.0.public_jwk()
    }

    pub(crate) fn verifier(&self) -> &VerificationKey {
        self.0.verifier()
    }
}

impl fmt::Debug for WitVerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitVerificationKey({}, {:?})", self.kid(), self.0.verifier())
    }
}
