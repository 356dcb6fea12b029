//! JWT-SVIDs of this workload (SPIFFE Workload API, section 6.2.1).

use std::fmt;

use countersign_core::{
    id::SpiffeId,
    jwt::{JwtClaims, JwtSvidError, read_jwt_svid},
};
use jiff::Timestamp;
use tonic::{Code, Status};
use zeroize::Zeroizing;

/// A JWT-SVID of this workload. Whoever holds it can use it: it is not shown by `Debug`, and wiped when it is dropped.
pub struct JwtSvid {
    token: Zeroizing<String>,
    claims: JwtClaims,
    hint: String,
}

/// Why there is no JWT-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRequestError {
    /// No audience, or an empty one: a token without is for everybody.
    #[error("no audience was named: say who the JWT-SVID is for")]
    NoAudience,
    /// This workload may not have it.
    #[error("the JWT-SVID is refused: {reason}")]
    Denied {
        /// As the Workload API says.
        reason: String,
    },
    /// The Workload API says that it is asked wrongly.
    #[error("the Workload API refuses to be asked for the JWT-SVID: {reason}")]
    Refused {
        /// As the Workload API says.
        reason: String,
    },
    /// The Workload API is away, or has none now.
    #[error("no JWT-SVID can be had now: {reason}")]
    Unavailable {
        /// As the Workload API says, or why it cannot be reached.
        reason: String,
    },
    /// What came is not a JWT-SVID.
    #[error("the Workload API sent what is not a JWT-SVID: {0}")]
    Malformed(#[from] JwtSvidError),
    /// What came is a JWT-SVID, and not the one that was asked for.
    #[error("the Workload API sent a JWT-SVID that {problem}")]
    Other {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// None of what came has the configured hint.
    #[error("no JWT-SVID of this workload has the hint {hint:?}")]
    NoSuchHint {
        /// The hint.
        hint: String,
    },
}

impl JwtSvid {
    /// JWS compact serialization.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.claims.id
    }

    /// Its claims, as its issuer wrote them: they were not verified here.
    #[must_use]
    pub fn claims(&self) -> &JwtClaims {
        &self.claims
    }

    /// What its owner says its id is for; may be empty.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Reads one that was asked for with these audiences. Its signature is not verified: it came from this workload's own Workload API.
    pub(super) fn read(
        token: Zeroizing<String>,
        hint: String,
        audiences: &[&str],
        now: Timestamp,
    ) -> Result<Self, TokenRequestError> {
        let claims = read_jwt_svid(&token)?;
        let problem = if claims.expires_at <= now {
            "has expired"
        } else if !audiences.iter().all(|audience| claims.audiences.iter().any(|named| named == audience)) {
            "is not for the audiences that were asked for"
        } else {
            return Ok(Self { token, claims, hint });
        };
        Err(TokenRequestError::Other { problem })
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JwtClaims { id, audiences, expires_at, .. } = &self.claims;
        write!(f, "JwtSvid({id}, for {audiences:?}, until {expires_at})")
    }
}

impl From<Status> for TokenRequestError {
    fn from(status: Status) -> Self {
        let reason = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied => Self::Denied { reason },
            Code::InvalidArgument => Self::Refused { reason },
            code => Self::Unavailable { reason: format!("{code:?}: {reason}") },
        }
    }
}
