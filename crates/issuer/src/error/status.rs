//! What a refusal is on the wire: a status code of gRPC, and whether and when to ask again.

use std::time::Duration;

use countersign_core::jwt::JwtIssueError;
use countersign_proto::issuer::v1;
use tonic::{Code, Status, metadata::MetadataValue};

use super::IssuerError;
use crate::{connection::NotOpened, registry::Full, token_keys::VerifyError};

/// The metadata key of the time to wait before asking again, milliseconds.
pub const RETRY_AFTER: &str = "retry-after-ms";

impl IssuerError {
    /// The status code on the wire.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NoHello(_)
            | Self::NotHello
            | Self::Token(VerifyError::Token(_))
            | Self::TokenExpired
            | Self::OtherPod
            | Self::TokenMismatch
            | Self::PodGone { .. } => Code::Unauthenticated,
            Self::Protocol(_)
            | Self::UnknownSession { .. }
            | Self::Csr(_)
            | Self::KeyReused(_)
            | Self::AudienceMalformed { .. }
            | Self::AudienceCount { .. } => Code::InvalidArgument,
            Self::NoIdentity(_) | Self::NotHeld(_) | Self::NoWit(_) | Self::Audience { .. } => Code::PermissionDenied,
            Self::Superseded => Code::Aborted,
            Self::Jwt(JwtIssueError::Audience | JwtIssueError::TooLong) => Code::InvalidArgument,
            Self::Token(VerifyError::NoKeys | VerifyError::Stale(_))
            | Self::NoAuthority(_)
            | Self::Stale(_)
            | Self::X509(_)
            | Self::Jwt(_)
            | Self::Wit(_)
            | Self::Starting(_)
            | Self::Undecided
            | Self::Full(_)
            | Self::TooFast(_)
            | Self::NamespaceBusy(_)
            | Self::NotOpened(_)
            | Self::ShuttingDown(_)
            | Self::Clock(_) => Code::Unavailable,
        }
    }

    /// How long to wait before asking again; `None` when asking again as it is will not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooFast(wait)
            | Self::NamespaceBusy(wait)
            | Self::NotOpened(NotOpened::TooMany(wait) | NotOpened::Failing(wait)) => {
                Some((*wait).max(Duration::from_millis(1)))
            }
            Self::ShuttingDown(wait) | Self::Full(Full::TooSoon(wait)) => Some(*wait),
            // It is starting: the first confirmation is a moment away.
            Self::Stale(stale) if stale.age == Duration::MAX => Some(Duration::from_millis(500)),
            Self::Starting(_) | Self::NoAuthority(_) | Self::Undecided | Self::Clock(_) => {
                Some(Duration::from_millis(500))
            }
            Self::Token(VerifyError::NoKeys) | Self::Full(_) => Some(Duration::from_secs(2)),
            Self::Token(VerifyError::Stale(_)) | Self::Stale(_) => Some(Duration::from_secs(5)),
            Self::X509(_) | Self::Jwt(_) if self.code() == Code::Unavailable => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// As the answer to one request; the stream goes on.
    #[must_use]
    pub fn to_answer(&self) -> v1::Refusal {
        let retry_after = self.retry_after().map_or(0, spread);
        v1::Refusal {
            code: self.code() as i32,
            message: self.to_string(),
            retry_after_ms: u32::try_from(retry_after).unwrap_or(u32::MAX),
        }
    }
}

impl From<&IssuerError> for Status {
    fn from(refused: &IssuerError) -> Self {
        let mut status = Self::new(refused.code(), refused.to_string());
        if let Some(wait) = refused.retry_after() {
            status.metadata_mut().insert(RETRY_AFTER, MetadataValue::from(spread(wait)));
        }
        status
    }
}

/// In milliseconds, and up to a quarter longer: who was refused together shall not come back together.
fn spread(wait: Duration) -> u64 {
    let wait = wait.mul_f64(rand::random_range(1.0..1.25));
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::{Full, IssuerError, RETRY_AFTER};
    use std::{collections::BTreeSet, time::Duration};
    use tonic::{Code, Status};

    #[test]
    fn who_is_refused_together_is_told_different_times_none_too_early() {
        let refused = IssuerError::Full(Full::TooSoon(Duration::from_secs(2)));
        let waits: BTreeSet<u64> = (0..100)
            .map(|_| {
                let status = Status::from(&refused);
                assert_eq!(status.code(), Code::Unavailable);
                status.metadata().get(RETRY_AFTER).unwrap().to_str().unwrap().parse().unwrap()
            })
            .collect();
        assert!(waits.len() > 10, "{waits:?}");
        assert!(waits.iter().all(|wait| (2000..=2500).contains(wait)), "{waits:?}");
    }
}
