//! Why a journal is not used. None of these may lead to a new root: a person decides.

use countersign_reasons::Reason;
use jiff::Timestamp;

use crate::id::TrustDomain;
use crate::jwt::JwtIssueError;
use crate::key::KeyError;
use crate::wit::WitIssueError;
use crate::x509::IssueError;

/// Why a journal cannot be read, made or changed. Never holds a part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It is not what was written.
    #[error("the journal is damaged ({what}): restore the Secret from a backup, or decide on a new root")]
    Damaged {
        /// What does not hold.
        what: String,
    },
    /// Written in another format.
    #[error("the journal has the format {format:?}, and this release reads {known}: run the release that wrote it", known = super::Format::readable())]
    UnknownFormat {
        /// As it stands, shortened.
        format: String,
    },
    /// Its payload is protected in a way that is not known here.
    #[error(
        "the journal is protected by {protection:?}, and this release knows \"none\": run the release that wrote it"
    )]
    UnknownProtection {
        /// As it stands, shortened.
        protection: String,
    },
    /// Made in another cluster.
    #[error(
        "the journal is of cluster {found} (uid of namespace kube-system), and this is {expected}: two clusters must not sign \
         with the same keys; remove the Secret here, or move the authority with consent"
    )]
    OtherCluster {
        /// The uid in the journal, shortened.
        found: String,
        /// This cluster's.
        expected: String,
    },
    /// Made for another trust domain, or for the control plane.
    #[error(
        "the journal is of {}, and here belongs that of {}: put each Secret back in its place",
        named(found),
        named(expected)
    )]
    OtherTrustDomain {
        /// In the journal; `None`: the control plane.
        found: Option<TrustDomain>,
        /// Wanted; `None`: the control plane.
        expected: Option<TrustDomain>,
    },
    /// What relying parties have seen is newer.
    #[error(
        "the journal's sequence is {sequence}, older than {published}, which was published: an old copy was restored; put back \
         the newest, or decide to go on with this one"
    )]
    OlderThanPublished {
        /// The journal's.
        sequence: u64,
        /// What was published.
        published: u64,
    },
    /// An authority that was made is not what was asked for.
    #[error("the {kind} authority that was made cannot be used: {what}")]
    Made {
        /// Of what.
        kind: super::Kind,
        /// What is wrong with it.
        what: String,
    },
    /// A plan for another journal, or applied at another time.
    #[error("the plan does not fit the journal at {at}: plan again")]
    StalePlan {
        /// When it was to be applied.
        at: Timestamp,
    },
    /// No key could be made.
    #[error("a key for the journal: {0}")]
    Key(#[from] KeyError),
    /// No X.509 authority could be made.
    #[error("an X.509 authority for the journal: {0}")]
    X509(#[from] IssueError),
    /// No JWT authority could be made.
    #[error("a JWT authority for the journal: {0}")]
    Jwt(#[from] JwtIssueError),
    /// No WIT authority could be made.
    #[error("a WIT authority for the journal: {0}")]
    Wit(#[from] WitIssueError),
}

impl JournalError {
    /// A CamelCase reason for conditions.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Damaged { .. } => Reason::JournalDamaged,
            Self::UnknownFormat { .. } | Self::UnknownProtection { .. } => Reason::JournalFormatUnknown,
            Self::OtherCluster { .. } => Reason::JournalOfOtherCluster,
            Self::OtherTrustDomain { .. } => Reason::JournalOfOtherTrustDomain,
            Self::OlderThanPublished { .. } => Reason::JournalOlderThanPublished,
            Self::StalePlan { .. } => Reason::PlanStale,
            Self::Key(_) | Self::X509(_) | Self::Jwt(_) | Self::Wit(_) | Self::Made { .. } => Reason::AuthorityNotMade,
        }
    }

    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

fn named(trust_domain: &Option<TrustDomain>) -> String {
    trust_domain.as_ref().map_or_else(|| "the control plane".to_owned(), |name| format!("trust domain {name}"))
}
