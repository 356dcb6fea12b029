//! A signing authority of JWT-SVIDs.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use super::key::{JwtKeyError, JwtVerificationKey};
use crate::id::SpiffeId;
use crate::jws::{MAX_TOKEN_LENGTH, SignError, TokenSigner, random_text};
use crate::key::{KeyError, KeyType, PrivateKey, Signer};

/// Signs JWT-SVIDs with one key, whose id stands in every token. Cheap to clone.
#[derive(Clone)]
pub struct JwtAuthority {
    signer: TokenSigner,
    verification_key: JwtVerificationKey,
}

/// What a token is to say.
#[derive(Clone, Copy, Debug)]
pub struct JwtRequest<'a> {
    /// The workload's id; it has a path.
    pub id: &'a SpiffeId,
    /// For whom it is: at least one, none empty.
    pub audiences: &'a [String],
    /// From now.
    pub ttl: Duration,
    /// The value of `iss`, where the trust domain has an issuer URL.
    pub issuer: Option<&'a str>,
}

/// A token that was issued.
#[derive(Clone)]
pub struct IssuedJwt {
    /// JWS Compact Serialization; a bearer secret.
    pub token: Zeroizing<String>,
    /// In whole seconds: the value of `exp`.
    pub expires_at: Timestamp,
    /// The value of `jti`.
    pub jti: String,
}

/// Why no token was issued, or no authority made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtIssueError {
    /// No audience, or an empty one.
    #[error("a JWT-SVID needs at least one audience, and none that is empty")]
    Audience,
    /// The id is that of a trust domain.
    #[error("{id} has no path; a workload's id has one")]
    IdWithoutPath {
        /// The id that was asked for.
        id: SpiffeId,
    },
    /// Less than a second, or too long.
    #[error("lifetime is shorter than a second or ends after the year 9999")]
    Lifetime,
    /// Longer than what verifiers look at.
    #[error("token would be longer than {MAX_TOKEN_LENGTH} bytes; ask for fewer or shorter audiences")]
    TooLong,
    /// The authority's key has no form as a JWK, or no id.
    #[error(transparent)]
    VerificationKey(#[from] JwtKeyError),
    /// The key is not the one that verifiers know.
    #[error("the key is not the one of the authority's public key")]
    KeyMismatch,
    /// The key could not be made or did not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a SpiffeId,
    aud: &'a [String],
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    jti: &'a str,
}

impl JwtAuthority {
    /// A new authority under a new key that is never stored, with a random key id. To store the
    /// key, make it first and call [`Self::new`].
    ///
    /// # Errors
    /// When no key can be made.
    pub fn generate(key_type: KeyType) -> Result<Self, JwtIssueError> {
        Self::new(&random_text().ok_or(JwtIssueError::Random)?, PrivateKey::generate(key_type)?)
    }

    /// The authority of `key`, known to verifiers as `kid`.
    ///
    /// # Errors
    /// [`JwtIssueError::VerificationKey`] when `kid` is empty.
    pub fn new(kid: &str, key: impl Signer + 'static) -> Result<Self, JwtIssueError> {
        let verification_key = JwtVerificationKey::new(kid, key.public_key())?;
        Ok(Self { signer: TokenSigner::new(key, kid, "JWT"), verification_key })
    }

    /// The id of its key.
    pub fn kid(&self) -> &str {
        self.verification_key.kid()
    }

    /// The public half, for the bundle.
    pub fn verification_key(&self) -> &JwtVerificationKey {
        &self.verification_key
    }

    /// Issues a JWT-SVID (JWT-SVID, sections 2 and 3): its header holds `alg`, `kid` and `typ`; its
    /// claims are `sub`, `aud`, `iat`, `exp`, `jti`, and `iss` where an issuer is given.
    ///
    /// # Errors
    /// When the audiences, the id or the lifetime are not acceptable, or signing fails.
    pub fn issue(&self, request: &JwtRequest<'_>, now: Timestamp) -> Result<IssuedJwt, JwtIssueError> {
        if request.audiences.is_empty() || request.audiences.iter().any(String::is_empty) {
            return Err(JwtIssueError::Audience);
        }
        if request.id.path().is_empty() {
            return Err(JwtIssueError::IdWithoutPath { id: request.id.clone() });
        }
        let ttl = i64::try_from(request.ttl.as_secs()).map_err(|_| JwtIssueError::Lifetime)?;
        if ttl == 0 {
            return Err(JwtIssueError::Lifetime);
        }
        let exp = now.as_second().checked_add(ttl).ok_or(JwtIssueError::Lifetime)?;
        let expires_at = Timestamp::from_second(exp).map_err(|_| JwtIssueError::Lifetime)?;
        let jti = random_text().ok_or(JwtIssueError::Random)?;
        let claims = Claims {
            sub: request.id,
            aud: request.audiences,
            iat: now.as_second(),
            exp,
            iss: request.issuer,
            jti: &jti,
        };
        match self.signer.sign(&claims) {
            Ok(token) => Ok(IssuedJwt { token, expires_at, jti }),
            Err(SignError::TooLong) => Err(JwtIssueError::TooLong),
            Err(SignError::Key(error)) => Err(error.into()),
        }
    }
}

impl fmt::Debug for JwtAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtAuthority({}, key redacted)", self.kid())
    }
}

impl fmt::Debug for IssuedJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedJwt(token redacted, expires {})", self.expires_at)
    }
}
