//! The label of a refusal among the metrics.

use super::IssuerError;
use crate::{metrics::Reason, token_keys::VerifyError};

impl IssuerError {
    /// The class under which it is counted.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoHello(_) | Self::NotHello => Reason::NoHello,
            Self::Protocol(_) | Self::Superseded => Reason::Protocol,
            Self::Stale(_) | Self::Token(VerifyError::Stale(_)) => Reason::StaleView,
            Self::Token(_) | Self::TokenExpired | Self::TokenMismatch => Reason::Token,
            Self::OtherPod => Reason::OtherPod,
            Self::PodGone { .. } => Reason::PodGone,
            Self::UnknownSession { .. } => Reason::UnknownSession,
            Self::NoIdentity(_) | Self::NotHeld(_) | Self::NoWit(_) => Reason::NoIdentity,
            Self::Csr(_) | Self::KeyReused(_) => Reason::Csr,
            Self::Audience { .. } | Self::AudienceMalformed { .. } | Self::AudienceCount { .. } => Reason::Audience,
            Self::NoAuthority(_) | Self::X509(_) | Self::Jwt(_) | Self::Wit(_) => Reason::Authority,
            Self::Starting(_)
            | Self::Undecided
            | Self::Full(_)
            | Self::TooFast(_)
            | Self::NamespaceBusy(_)
            | Self::NotOpened(_)
            | Self::ShuttingDown(_)
            | Self::Clock(_) => Reason::Overload,
        }
    }
}
