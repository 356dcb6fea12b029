//! Why a request is refused, and what its sender gets.

use std::fmt;

use countersign_core::{
    id::SpiffeId,
    jwt::JwtSvidError,
    wimse::{Answer, Problem, signature::SignatureError, wpt::WptError},
};

use super::{Method, ReplayCacheError};

/// A refused request: the reason for the log, and the answer for the sender, which does not say which check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    reason: RefusalReason,
    answer: Answer,
}

/// Why a request is refused; for the log alone. Never holds a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalReason {
    /// There is neither a proof nor an mTLS peer.
    #[error("the request has no proof that is accepted here, and its connection no authenticated peer")]
    NoProof,
    /// The proof is of a kind that is not accepted.
    #[error("the request has a proof of the kind {0}, which is not accepted here")]
    MethodNotAccepted(Method),
    /// Two proofs, which may name two callers.
    #[error("the request has two proofs, {0} and {1}; send one")]
    TwoProofs(Method, Method),
    /// Two fields of one value.
    #[error("the request has several fields Authorization")]
    SeveralAuthorization,
    /// The field is not what is known here.
    #[error("Authorization is not one of the schemes Bearer and WPT with one token")]
    Authorization,
    /// Nothing proves that the sender holds the key of its WIT.
    #[error("the request has a Workload-Identity-Token and no proof of possession of its key")]
    WitWithoutProof,
    /// As [`Self::WitWithoutProof`], beside a JWT-SVID.
    #[error("the request has a Workload-Identity-Token without proof beside a JWT-SVID; send one of them")]
    WitBesideJwtSvid,
    /// The field of draft 01.
    #[error("the request has a field Workload-Proof-Token, which is of draft 01; send the proof as Authorization: WPT")]
    OldProof,
    /// The JWT-SVID was refused.
    #[error("the JWT-SVID is refused: {0}")]
    JwtSvid(#[from] JwtSvidError),
    /// The Workload Proof Token or its WIT was refused.
    #[error("the WPT is refused: {0}")]
    Wpt(#[from] WptError),
    /// The signature or its WIT was refused.
    #[error("the HTTP signature is refused: {0}")]
    Signature(#[from] SignatureError),
    /// There are no bundles yet, or no longer, so that nothing of this kind can be verified.
    #[error("a proof of the kind {0} cannot be verified: there are no bundles now")]
    NoBundles(Method),
    /// It is not known whether the proof was used before.
    #[error("the proof is valid, but not known to be new: {0}")]
    ReplayCache(#[from] ReplayCacheError),
    /// The caller is who it says, and may not call.
    #[error("the caller is {id} by {method}, which is not accepted here")]
    Caller {
        /// Who it is.
        id: SpiffeId,
        /// How that was proven.
        method: Method,
    },
    /// The mTLS peer may not carry requests of others.
    #[error("the request of {caller} came by {via}, which may not carry requests of others")]
    Via {
        /// The mTLS peer.
        via: SpiffeId,
        /// Who the request is of.
        caller: SpiffeId,
    },
}

/// Two credentials (RFC 6750, section 3.1, for its own).
const BAD_REQUEST: Answer = Answer { status: 400, challenge: None, problem: Some(Problem::Blank) };
/// For a caller that is known, and for one that only the connection could have authenticated, which no challenge can ask for.
const FORBIDDEN: Answer = Answer { status: 403, challenge: None, problem: None };
/// RFC 6750, section 3.1.
const INVALID_TOKEN: Answer = Answer { status: 401, challenge: Some(r#"Bearer error="invalid_token""#), problem: None };

impl Refusal {
    /// `missing` is what the sender of a request without an acceptable proof gets.
    pub(super) fn new(reason: RefusalReason, missing: Answer) -> Self {
        use RefusalReason as Reason;
        let answer = match &reason {
            Reason::NoProof
            | Reason::MethodNotAccepted(_)
            | Reason::Authorization
            | Reason::WitWithoutProof
            | Reason::OldProof => missing,
            Reason::TwoProofs(..) | Reason::SeveralAuthorization | Reason::WitBesideJwtSvid => BAD_REQUEST,
            Reason::JwtSvid(_) => INVALID_TOKEN,
            Reason::Wpt(error) => error.answer(),
            Reason::Signature(error) => error.answer(),
            Reason::NoBundles(_) | Reason::ReplayCache(_) => Answer::UNAVAILABLE,
            Reason::Caller { .. } | Reason::Via { .. } => FORBIDDEN,
        };
        Self { reason, answer }
    }

    /// What the sender gets: status, challenge and problem details, the same whichever check of its proof failed.
    #[must_use]
    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// For the log.
    #[must_use]
    pub fn reason(&self) -> &RefusalReason {
        &self.reason
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.reason.source()
    }
}

/// What the sender of a request without an acceptable proof gets: 401 and the challenges of what is accepted. An HTTP signature has no
/// challenge: where it is the only proof that is accepted, its absence is answered as a signature that is refused
/// (draft-ietf-wimse-http-signature-08, section 3.6).
pub(super) fn missing_proof(wpt: bool, jwt_svid: bool, http_signature: bool) -> Answer {
    let challenge = match (wpt, jwt_svid) {
        (true, true) => "WPT, Bearer",
        (true, false) => "WPT",
        (false, true) => "Bearer",
        (false, false) if http_signature => return Answer::SIGNATURE,
        (false, false) => return FORBIDDEN,
    };
    Answer { status: 401, challenge: Some(challenge), problem: None }
}
