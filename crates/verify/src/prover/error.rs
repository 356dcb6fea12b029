//! Why no proof was made.

use countersign_core::wimse::{signature::MakeSignatureError, wpt::MakeWptError};

/// Why no proof was made. Never holds a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// Two credentials would name two callers.
    #[error("the request has an Authorization already, and would be refused with a proof beside it")]
    HasAuthorization,
    /// Two WITs would be refused.
    #[error("the message has a Workload-Identity-Token already")]
    HasWit,
    /// A token that must be bound is not one value.
    #[error("the field {name} is there several times or is not text, so that no proof can bind it")]
    ContextField {
        /// In lower case.
        name: String,
    },
    /// No Workload Proof Token was made.
    #[error("no Workload Proof Token was made: {0}")]
    Wpt(#[from] MakeWptError),
    /// No signature was made.
    #[error("no HTTP signature was made: {0}")]
    Signature(#[from] MakeSignatureError),
    /// What was asked for is not possible, or not allowed.
    #[error("the proof is refused: {reason}")]
    Refused {
        /// Without anything secret.
        reason: String,
    },
    /// There is no WIT-SVID now, or the agent cannot be reached.
    #[error("no proof can be made now: {reason}")]
    Unavailable {
        /// Without anything secret.
        reason: String,
    },
}
