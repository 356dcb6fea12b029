//! JWT-SVIDs of others (JWT-SVID, section 5).

use countersign_core::{
    bundle::BundleSet,
    id::SpiffeId,
    jwt::{JwtClaims, JwtSvidError, verify_jwt_svid},
};
use jiff::Timestamp;

use crate::Authorizer;

/// Why a token was refused. Never holds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is not a JWT-SVID that is trusted here.
    #[error("the JWT-SVID is refused: {0}")]
    Svid(#[from] JwtSvidError),
    /// It is of whom it says, and that is not who is wanted.
    #[error("the JWT-SVID is of {id}, which is not accepted here")]
    NotAccepted {
        /// Of whom it is.
        id: SpiffeId,
    },
    /// The service does not say who it is.
    #[error("the JWT-SVID cannot be validated: the audience of this service is empty")]
    NoAudience,
    /// There are no bundles yet, or no longer, so that nothing can be verified.
    #[error("the JWT-SVID cannot be verified: there are no bundles now")]
    NoBundles,
}

/// Validates a JWT-SVID for `audience` at `now`. Whoever holds such a token can use it until it expires: a token proves nothing about
/// the connection that it came by.
///
/// # Errors
/// With the first rule that it breaks.
pub fn validate_jwt_svid(
    token: &str,
    audience: &str,
    bundles: &BundleSet,
    callers: &Authorizer,
    now: Timestamp,
) -> Result<JwtClaims, TokenError> {
    if audience.is_empty() {
        return Err(TokenError::NoAudience);
    }
    let claims = verify_jwt_svid(token, audience, bundles, now)?;
    if callers.permits(&claims.id) { Ok(claims) } else { Err(TokenError::NotAccepted { id: claims.id }) }
}
