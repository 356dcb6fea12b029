//! A signing authority of WIT-SVIDs.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::TYPE;
use super::key::WitVerificationKey;
use crate::id::SpiffeId;
use crate::jws::{PublicJwk, SignError, TokenSigner, random_text};
use crate::jwt::JwtKeyError;
use crate::key::{KeyError, KeyType, PrivateKey, Signer, SubjectPublicKeyInfo};

/// By how much `nbf` lies before the time of issue, for clocks that are behind.
const BACKDATE: SignedDuration = SignedDuration::from_secs(10);

/// Signs WIT-SVIDs with one key, whose id stands in every token. Cheap to clone.
#[derive(Clone)]
pub struct WitAuthority {
    signer: TokenSigner,
    verification_key: WitVerificationKey,
}

/// What a WIT-SVID is to say.
#[derive(Clone, Copy, Debug)]
pub struct WitRequest<'a> {
    /// The workload's id; it has a path.
    pub id: &'a SpiffeId,
    /// The workload's key, on the curve P-256: its proofs are by ES256. The caller has verified that the workload holds it.
    pub confirmation: &'a SubjectPublicKeyInfo,
    /// From now.
    pub ttl: Duration,
}

/// A WIT-SVID that was issued.
#[derive(Clone)]
pub struct IssuedWit {
    /// JWS Compact Serialization. Not a secret by itself, but it is kept from logs as one.
    pub token: Zeroizing<String>,
    /// In whole seconds: the value of `exp`.
    pub expires_at: Timestamp,
    /// The value of `jti`.
    pub jti: String,
}

/// Why no WIT-SVID was issued, or no authority made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitIssueError {
    /// The id is that of a trust domain.
    #[error("{id} has no path; a workload's id has one")]
    IdWithoutPath {
        /// The id that was asked for.
        id: SpiffeId,
    },
    /// Of another kind than is used for proofs.
    #[error("the workload's key is not one on the curve P-256, by which proofs are signed (ES256)")]
    Confirmation,
    /// Less than a second, or too long.
    #[error("lifetime is shorter than a second or ends after the year 9999")]
    Lifetime,
    /// The authority's key has no form as a JWK, or no id.
    #[error(transparent)]
    VerificationKey(#[from] JwtKeyError),
    /// The key is not the one that verifiers know.
    #[error("the key is not the one of the authority's public key")]
    KeyMismatch,
    /// The key could not be made or did not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Longer than what verifiers look at; no id is so long.
    #[error("token would be longer than verifiers look at")]
    TooLong,
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: String,
    sub: &'a SpiffeId,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: &'a str,
    cnf: Confirmation,
}

/// RFC 7800, section 3.2.
#[derive(Serialize)]
struct Confirmation {
    jwk: Map<String, Value>,
}

impl WitAuthority {
    /// A new authority under a new key that is never stored, with a random key id.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn generate(key_type: KeyType) -> Result<Self, WitIssueError> {
        Self::new(&random_text().ok_or(WitIssueError::Random)?, PrivateKey::generate(key_type)?)
    }

    /// The authority of `key`, known to verifiers as `kid`.
    ///
    /// # Errors
    /// [`WitIssueError::VerificationKey`] when `kid` is empty.
    pub fn new(kid: &str, key: impl Signer + 'static) -> Result<Self, WitIssueError> {
        let verification_key = WitVerificationKey::new(kid, key.public_key())?;
        Ok(Self { signer: TokenSigner::new(key, kid, TYPE), verification_key })
    }

    /// The id of its key.
    pub fn kid(&self) -> &str {
        self.verification_key.kid()
    }

    /// The public half, for the bundle.
    pub fn verification_key(&self) -> &WitVerificationKey {
        &self.verification_key
    }

    /// Issues a WIT-SVID (WIT-SVID, sections 2 to 4; WIMSE Workload Credentials, section 3): its header holds `alg`, `kid` and `typ`; its
    /// claims are `iss`, `sub`, `iat`, `nbf`, `exp`, `jti` and `cnf` with the workload's key and its `alg`. It has no `aud`: it is never
    /// a bearer token. `iss` is the SPIFFE ID of the trust domain, which no relying party of OpenID Connect takes for an issuer.
    ///
    /// # Errors
    /// When the id, the workload's key or the lifetime is not acceptable, or signing fails.
    pub fn issue(&self, request: &WitRequest<'_>, now: Timestamp) -> Result<IssuedWit, WitIssueError> {
        if request.id.path().is_empty() {
            return Err(WitIssueError::IdWithoutPath { id: request.id.clone() });
        }
        let ttl = i64::try_from(request.ttl.as_secs()).ok().filter(|ttl| *ttl > 0).ok_or(WitIssueError::Lifetime)?;
        let exp = now.as_second().checked_add(ttl).ok_or(WitIssueError::Lifetime)?;
        let expires_at = Timestamp::from_second(exp).map_err(|_| WitIssueError::Lifetime)?;
        let key = PublicJwk::from_spki(request.confirmation).ok_or(WitIssueError::Confirmation)?;
        if !key.is_p256() {
            return Err(WitIssueError::Confirmation);
        }
        let mut jwk = key.members();
        jwk.insert("alg".to_owned(), "ES256".into());
        let jti = random_text().ok_or(WitIssueError::Random)?;
        let claims = Claims {
            iss: request.id.trust_domain().id_string(),
            sub: request.id,
            iat: now.as_second(),
            nbf: now.saturating_sub(BACKDATE).unwrap_or(now).as_second(),
            exp,
            jti: &jti,
            cnf: Confirmation { jwk },
        };
        match self.signer.sign(&claims) {
            Ok(token) => Ok(IssuedWit { token, expires_at, jti }),
            Err(SignError::TooLong) => Err(WitIssueError::TooLong),
            Err(SignError::Key(error)) => Err(error.into()),
        }
    }
}

impl fmt::Debug for WitAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitAuthority({}, key redacted)", self.kid())
    }
}

impl fmt::Debug for IssuedWit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedWit(token redacted, expires {})", self.expires_at)
    }
}
