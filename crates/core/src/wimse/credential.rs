//! The WIT of a message (draft-ietf-wimse-workload-creds-02, section 5.1.1).

use jiff::Timestamp;

use super::message::single;
use super::{Field, Policy, WIT_FIELD};
use crate::wit::{WitClaims, WitSvidError, verify_wit_svid};

/// Why a message has no WIT that we trust. Never holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitFieldError {
    /// The field is missing.
    #[error("message has no Workload-Identity-Token")]
    Missing,
    /// The field is there several times.
    #[error("message has several fields Workload-Identity-Token")]
    Repeated,
    /// The field is not text, or holds several values.
    #[error("Workload-Identity-Token is not one token")]
    NotOne,
    /// The WIT was refused.
    #[error(transparent)]
    Wit(#[from] WitSvidError),
}

/// The only WIT of a message, as text.
pub(super) fn wit_text<'a>(fields: &'a [Field<'a>]) -> Result<&'a str, WitFieldError> {
    let field = single(fields, WIT_FIELD).map_err(|_| WitFieldError::Repeated)?.ok_or(WitFieldError::Missing)?;
    // Several lines may have been joined by commas on the way (RFC 9110, section 5.3).
    let text = std::str::from_utf8(field).ok().filter(|text| !text.contains([',', ' ']));
    text.ok_or(WitFieldError::NotOne)
}

/// The WIT of a message, verified, and its text.
pub(super) fn verify_wit<'a>(
    fields: &'a [Field<'a>],
    policy: &Policy<'_>,
    now: Timestamp,
) -> Result<(WitClaims, &'a str), WitFieldError> {
    let text = wit_text(fields)?;
    Ok((verify_wit_svid(text, policy.bundles, policy.max_wit_life, now)?, text))
}
