//! Why the issuer refuses. What a cause means is mapped apart from it: on the wire in `status`, among the metrics in `label`, for
//! the budget of failures of its connection in `fault`.

mod fault;
mod label;
mod status;

use std::time::Duration;

use countersign_core::{
    csr::CsrError, entitlement::AudienceError, id::TrustDomain, jwt::JwtIssueError, wit::WitIssueError,
    x509::IssueError,
};
use countersign_runtime::clock_skew::ClockSkew;

use crate::{connection::NotOpened, freshness::StaleView, registry::Full, token_keys::VerifyError};
pub use status::RETRY_AFTER;

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
        NotOpened::TooMany(_) => "too many streams were opened on this connection recently",
        NotOpened::Failing(_) => "too many streams of this connection failed recently; the reasons are in their status",
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
    /// The identity has no WIT-SVIDs.
    #[error("{0} has no WIT-SVIDs: its WorkloadIdentity needs spec.wit, and its TrustDomain spec.authority.wit")]
    NoWit(String),
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
    /// The WIT-SVID could not be made.
    #[error("the WIT-SVID could not be issued: {0}")]
    Wit(WitIssueError),
    /// This replica has not seen the whole cluster yet.
    #[error("the issuer is starting: {0}")]
    Starting(String),
    /// It cannot be said now whether the pod is alive.
    #[error("it is not known at present whether the pod is alive: the API server does not answer or too many ask")]
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

impl From<VerifyError> for IssuerError {
    fn from(error: VerifyError) -> Self {
        Self::Token(error)
    }
}
