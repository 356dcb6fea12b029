//! Why the issuer refuses, and what each cause means on the wire: a status code, whether and when to ask again, and the
//! class under which it is counted.

use std::time::Duration;

use countersign_core::{
    csr::CsrError, entitlement::AudienceError, id::TrustDomain, jwt::JwtIssueError, service_account::TokenError,
    x509::IssueError,
};
use countersign_proto::issuer::v1;
use tonic::{Code, Status, metadata::MetadataValue};

use super::{connection::NotOpened, registry::Full};
use crate::token_keys::VerifyError;
use crate::{freshness::StaleView, metrics::Reason};
use countersign_runtime::clock_skew::ClockSkew;

/// The metadata key of the time to wait before asking again, milliseconds.
pub const RETRY_AFTER: &str = "retry-after-ms";

/// Why a stream or a request is refused. No variant holds a token or a key.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The first message did not come in time.
    #[error("no Hello within {}s of the stream's begin", .0.as_secs())]
    NoHello(Duration),
    /// The first message was another one.
    #[error("the first message of a stream must be Hello")]
    NotHello,
    /// The connection takes no further stream for now.
    #[error("{}", match .0 {
        NotOpened::TooMany(_) => "too many streams were opened on this connection of late",
        NotOpened::Failing(_) => "too many streams of this connection failed of late; the reasons are in their status",
    })]
    NotOpened(NotOpened),
    /// A message that has no meaning where it came.
    #[error("{0}")]
    Protocol(&'static str),
    /// The token did not verify.
    #[error(transparent)]
    Token(VerifyError),
    /// The stream's token ran out.
    #[error(
        "the stream's service account token expired; open a new stream with the one the kubelet has projected since"
    )]
    TokenExpired,
    /// A token of another pod.
    #[error("the token belongs to another pod than the one that opened this stream")]
    OtherPod,
    /// The token and the pod disagree.
    #[error("the token's namespace, name or service account is not that of the pod with its uid")]
    TokenMismatch,
    /// The pod is not, or no longer, alive.
    #[error("pod {namespace}/{name} of uid {uid} does not exist or has ended")]
    PodGone {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// The session names no container.
    #[error(
        "pod {namespace}/{name} has no container {session:?} that may have a session; a session is empty or names a container other than the \
         agent's"
    )]
    UnknownSession {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the session is named.
        session: String,
    },
    /// A newer stream has the session.
    #[error(
        "a newer stream of the same pod took over: of the same session, or of the pod as a whole against its containers"
    )]
    Superseded,
    /// The pod has no identity at all.
    #[error("the pod has no identity: {0}")]
    NoIdentity(String),
    /// The pod has identities, but not this one.
    #[error("the pod does not hold {0:?}; ask for one of those in its state")]
    NotHeld(String),
    /// The request was not acceptable.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// A key is used for a second identity.
    #[error("this key was used for {0} already; a key serves one identity only: make another")]
    KeyReused(String),
    /// An audience that is not the identity's.
    #[error(
        "{id} may not ask for audience {audience:?}: add it to spec.jwt.audiences of its WorkloadIdentity, within what the TrustDomain grants"
    )]
    Audience {
        /// The audience.
        audience: String,
        /// The identity.
        id: String,
    },
    /// An audience that only a WorkloadIdentity which names it exactly could allow.
    #[error("audience {audience:?} is not acceptable: {problem}")]
    AudienceMalformed {
        /// The audience.
        audience: String,
        /// What is wrong.
        problem: AudienceError,
    },
    /// None, or too many.
    #[error("a JWT-SVID is for 1 to {most} audiences, {found} were asked for")]
    AudienceCount {
        /// How many were asked for.
        found: usize,
        /// How many may be.
        most: usize,
    },
    /// The trust domain cannot sign.
    #[error("the authority of trust domain {0} is not there yet; its TrustDomain's conditions say why")]
    NoAuthority(TrustDomain),
    /// What the replica knows of the cluster is too old.
    #[error(transparent)]
    Stale(#[from] StaleView),
    /// The certificate could not be made.
    #[error("the certificate could not be issued: {0}")]
    X509(IssueError),
    /// The token could not be made.
    #[error("the token could not be issued: {0}")]
    Jwt(JwtIssueError),
    /// This replica has not seen the whole cluster yet.
    #[error("the issuer is starting: {0}")]
    Starting(String),
    /// It cannot be said now whether the pod is alive.
    #[error("it cannot be told now whether the pod is alive: the API server does not answer or too many ask")]
    Undecided,
    /// A cap.
    #[error(transparent)]
    Full(#[from] Full),
    /// Faster than one stream may.
    #[error("too many requests on this stream")]
    TooFast(Duration),
    /// More than the namespace's share.
    #[error("the pods of this namespace ask for more signatures than their share of what the issuer makes")]
    NamespaceBusy(Duration),
    /// The process ends.
    #[error("this replica of the issuer is shutting down")]
    ShuttingDown(Duration),
    /// No time can be judged here.
    #[error(transparent)]
    Clock(#[from] ClockSkew),
}

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
            Self::NoIdentity(_) | Self::NotHeld(_) | Self::Audience { .. } => Code::PermissionDenied,
            Self::Superseded => Code::Aborted,
            Self::Jwt(JwtIssueError::Audience | JwtIssueError::TooLong) => Code::InvalidArgument,
            Self::Token(VerifyError::NoKeys | VerifyError::Stale(_))
            | Self::NoAuthority(_)
            | Self::Stale(_)
            | Self::X509(_)
            | Self::Jwt(_)
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
            Self::NoIdentity(_) | Self::NotHeld(_) => Reason::NoIdentity,
            Self::Csr(_) | Self::KeyReused(_) => Reason::Csr,
            Self::Audience { .. } | Self::AudienceMalformed { .. } | Self::AudienceCount { .. } => Reason::Audience,
            Self::NoAuthority(_) | Self::X509(_) | Self::Jwt(_) => Reason::Authority,
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

    /// Whether a stream that ends so before it has proven a pod does so by the peer's own fault. What this replica lacks, or
    /// the API server does not answer, is not.
    #[must_use]
    pub fn is_peers_fault(&self) -> bool {
        match self {
            // The keys may have been rotated, and the API server not have told yet.
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
            | Self::NoAuthority(_)
            | Self::Stale(_)
            | Self::X509(_)
            | Self::Jwt(_)
            | Self::Starting(_)
            | Self::Undecided
            | Self::Full(_)
            | Self::TooFast(_)
            | Self::NamespaceBusy(_)
            | Self::ShuttingDown(_)
            | Self::Clock(_) => false,
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

/// In milliseconds, and up to a quarter longer: who was refused together shall not come back together.
fn spread(wait: Duration) -> u64 {
    let wait = wait.mul_f64(rand::random_range(1.0..1.25));
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl From<VerifyError> for IssuerError {
    fn from(error: VerifyError) -> Self {
        Self::Token(error)
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

#[cfg(test)]
mod tests {
    use super::{Full, IssuerError, RETRY_AFTER};
    use std::{collections::BTreeSet, time::Duration};
    use tonic::{Code, Status};

    #[test]
    fn who_is_refused_together_is_told_different_times_none_too_early() {
        let refused = IssuerError::Full(Full::TooSoon(Duration::from_secs(2)));
        let told: BTreeSet<u64> = (0..100)
            .map(|_| {
                let status = Status::from(&refused);
                assert_eq!(status.code(), Code::Unavailable);
                status.metadata().get(RETRY_AFTER).unwrap().to_str().unwrap().parse().unwrap()
            })
            .collect();
        assert!(told.len() > 10, "{told:?}");
        assert!(told.iter().all(|wait| (2000..=2500).contains(wait)), "{told:?}");
    }
}
