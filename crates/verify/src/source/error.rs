//! Why there are no credentials.

use std::sync::Arc;

/// Why a source has nothing now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Nothing was received yet: the source goes on trying.
    #[error("no credentials yet; last error: {}", last.as_deref().unwrap_or("none"))]
    Waiting {
        /// What the last attempt met.
        last: Option<Arc<str>>,
    },
    /// The Workload API says that this workload has no identity: the source goes on asking.
    #[error("this workload has no identity: {reason}")]
    NoIdentity {
        /// As the Workload API says.
        reason: Arc<str>,
    },
    /// The Workload API says that it is asked wrongly (`InvalidArgument`): it is not asked again (SPIFFE Workload Endpoint,
    /// section 6).
    #[error("the Workload API refuses to be asked: {reason}")]
    Refused {
        /// As the Workload API says.
        reason: Arc<str>,
    },
    /// The source is no longer kept up to date: the runtime of Tokio in which it was made has ended. What it had is not used any more,
    /// since what was revoked meanwhile would not be known.
    #[error("the credentials are no longer kept up to date: the runtime in which their source was made has ended")]
    Stopped,
    /// There are SVIDs, and none has the hint that was asked for.
    #[error("no X509-SVID of this workload has the hint {hint:?}")]
    NoSuchHint {
        /// The hint.
        hint: String,
    },
}
