//! Whose fault a refusal is.

use countersign_core::service_account::TokenError;

use super::IssuerError;
use crate::token_keys::VerifyError;

impl IssuerError {
    /// Whether a stream that ends so before it has proven a pod does so by the peer's own fault. What this replica lacks, or
    /// the API server does not answer, is not.
    #[must_use]
    pub fn is_peers_fault(&self) -> bool {
        match self {
            // The API server may have rotated its keys, and this replica not have fetched the new ones yet.
            Self::Token(
                VerifyError::NoKeys | VerifyError::Stale(_) | VerifyError::Token(TokenError::UnknownKey { .. }),
            ) => false,
            Self::NoHello(_)
            | Self::NotHello
            | Self::Protocol(_)
            | Self::Token(VerifyError::Token(_))
            | Self::TokenExpired
            | Self::OtherPod
            | Self::TokenMismatch
            | Self::PodGone { .. }
            | Self::UnknownSession { .. }
            | Self::Csr(_)
            | Self::KeyReused(_)
            | Self::Audience { .. }
            | Self::AudienceMalformed { .. }
            | Self::AudienceCount { .. } => true,
            Self::NotOpened(_)
            | Self::Superseded
            | Self::NoIdentity(_)
            | Self::NotHeld(_)
            | Self::NoWit(_)
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
            | Self::ShuttingDown(_)
            | Self::Clock(_) => false,
        }
    }
}
