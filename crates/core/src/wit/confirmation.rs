//! The key of a workload that a WIT confirms: whoever presents the WIT proves to hold its private half.

use std::fmt;

use serde_json::{Map, Value};

use crate::jws::{Algorithm, Compact, JwkMembers, PublicJwk, SignatureInvalid, VerificationKey, quoted};
use crate::key::Signer;

/// The public key in `cnf.jwk`, for the one algorithm that the JWK names (WIMSE Workload Credentials, section 5.1; WIT-SVID,
/// section 3.2).
#[derive(Clone)]
pub struct ConfirmationKey {
    jwk: PublicJwk,
    algorithm: Algorithm,
    verifier: VerificationKey,
    thumbprint: String,
}

/// Why `cnf` confirms no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationError {
    /// Not an object with an object `jwk`, or members of a wrong type.
    #[error("cnf is not a JSON object with a jwk that is a public key")]
    Malformed,
    /// The JWK has no `alg`.
    #[error("cnf.jwk has no alg")]
    NoAlgorithm,
    /// The JWK's `alg` is not acceptable: `EdDSA` and `HS256` among others.
    #[error("cnf.jwk.alg {alg} is not one of RS, PS or ES with 256, 384 or 512")]
    Algorithm {
        /// Quoted and shortened.
        alg: String,
    },
    /// The key is of a kind that is not in use, is no key, or does not sign by `alg`.
    #[error(
        "cnf.jwk is no RSA key of 2048 to 8192 bits and no point on P-256, P-384 or P-521, or its alg does not fit it"
    )]
    Key,
    /// The private half is there too, so that it proves nothing.
    #[error("cnf.jwk holds a private key")]
    Private,
}

impl ConfirmationKey {
    /// The value of `alg` in proofs, such as `ES256`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// The thumbprint of the key by SHA-256, base64url (RFC 7638, section 3).
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The key as a JWK with its `alg`.
    pub fn jwk(&self) -> Map<String, Value> {
        let mut members = self.jwk.members();
        members.insert("alg".to_owned(), self.algorithm().into());
        members
    }

    /// Whether `key` is the private half, and signs by the algorithm.
    pub fn is_of(&self, key: &dyn Signer) -> bool {
        key.algorithm().jose_name() == self.algorithm()
            && PublicJwk::from_spki(key.public_key()).is_some_and(|public| public == self.jwk)
    }

    /// Reads `cnf.jwk`.
    pub(super) fn new(members: &JwkMembers) -> Result<Self, ConfirmationError> {
        let name = members.alg.as_deref().ok_or(ConfirmationError::NoAlgorithm)?;
        let algorithm = Algorithm::from_name(name).ok_or_else(|| ConfirmationError::Algorithm { alg: quoted(name) })?;
        let jwk = PublicJwk::from_members(members).ok().flatten().ok_or(ConfirmationError::Key)?;
        let verifier = VerificationKey::new(&jwk, Some(name))
            .filter(|verifier| verifier.fits(algorithm))
            .ok_or(ConfirmationError::Key)?;
        let thumbprint = jwk.thumbprint();
        Ok(Self { jwk, algorithm, verifier, thumbprint })
    }

    /// Whether the key signed `token`.
    pub(crate) fn verify_token(&self, token: &Compact<'_>) -> Result<(), SignatureInvalid> {
        token.verify(&self.verifier, self.algorithm)
    }

    /// Whether the key signed `message`; `signature` is in the form of JOSE.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
        self.verifier.verify(self.algorithm, message, signature)
    }
}

impl PartialEq for ConfirmationKey {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk && self.algorithm == other.algorithm
    }
}

impl Eq for ConfirmationKey {}

impl fmt::Debug for ConfirmationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfirmationKey({}, {})", self.algorithm(), self.thumbprint)
    }
}
