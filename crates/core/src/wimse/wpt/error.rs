//! Why a Workload Proof Token is refused.

use jiff::Timestamp;

use crate::jws::{CompactError, MAX_TOKEN_LENGTH};
use crate::wimse::{Answer, ReplayCacheFull, WitFieldError};

/// Why a request does not prove who sent it; for the log. Never holds a token. The peer gets [`Self::answer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WptError {
    /// The WIT was refused.
    #[error(transparent)]
    Wit(#[from] WitFieldError),
    /// No `Authorization`.
    #[error("request has no Authorization")]
    NoAuthorization,
    /// Several `Authorization`.
    #[error("request has several fields Authorization")]
    RepeatedAuthorization,
    /// Another scheme than `WPT`, or not one token after it.
    #[error("Authorization is not the scheme WPT and one token")]
    Scheme,
    /// A `Workload-Proof-Token` field.
    #[error("request has a field Workload-Proof-Token, which is of draft 01; send the proof as Authorization: WPT")]
    OldField,
    /// Longer than 16 KiB.
    #[error("WPT of {length} bytes is longer than {MAX_TOKEN_LENGTH}")]
    TooLong {
        /// Of the token, in bytes.
        length: usize,
    },
    /// Not three parts in base64url.
    #[error("WPT is not in JWS compact form: three parts in base64url without padding, joined by '.'")]
    NotCompact,
    /// The header cannot be read or holds more than it may.
    #[error("WPT's header is not a JSON object of alg, kid and typ alone")]
    Header,
    /// `typ` is missing or something else.
    #[error("WPT's typ {typ} is not wpt+jwt")]
    Type {
        /// Quoted and shortened.
        typ: String,
    },
    /// `alg` is not that of the WIT's key.
    #[error("WPT's alg {alg} is not the {expected} of the WIT's cnf.jwk")]
    Algorithm {
        /// Quoted and shortened.
        alg: String,
        /// The WIT's.
        expected: &'static str,
    },
    /// Not signed by the WIT's key.
    #[error("WPT's signature is not by the key of the WIT's cnf")]
    Signature,
    /// The claims cannot be read, one is there twice, or a required one is missing.
    #[error("WPT's claims are not a JSON object with aud, exp, jti and wth, each once and of its type")]
    Claims,
    /// A claim of draft 01, which binds a token that has no place beside a WPT.
    #[error("WPT has the claim ath of draft 01")]
    OldClaim,
    /// `aud` is not one audience of this verifier, for this path.
    #[error("WPT is not for this verifier and path: aud {aud}")]
    Audience {
        /// Quoted and shortened.
        aud: String,
    },
    /// `exp` has passed.
    #[error("WPT expired at {0}")]
    Expired(Timestamp),
    /// `exp` is too far ahead.
    #[error("WPT expires at {0}, later than a proof may")]
    TooLongLived(Timestamp),
    /// `nbf` is to come.
    #[error("WPT is not valid before {0}")]
    NotYetValid(Timestamp),
    /// `jti` is too short to hold 128 random bits.
    #[error("WPT's jti of {length} characters cannot hold 128 random bits")]
    TokenId {
        /// In characters.
        length: usize,
    },
    /// `wth` is of another WIT.
    #[error("WPT's wth is not the hash of the WIT")]
    WitHash,
    /// Several transaction tokens.
    #[error("request has several fields Txn-Token")]
    RepeatedTxnToken,
    /// `tth` is missing beside a transaction token, of another one, or there without one.
    #[error("WPT's tth is not the hash of the request's Txn-Token")]
    TxnTokenHash,
    /// A field that `oth` names, or must name, is not bound as it is.
    #[error(
        "WPT's oth does not hold for the field {name}: unknown here, missing, there several times, or of another value"
    )]
    OtherToken {
        /// Quoted and shortened.
        name: String,
    },
    /// The proof was used before.
    #[error("WPT was used before")]
    Replayed,
    /// Whether the proof was used before cannot be remembered.
    #[error(transparent)]
    ReplayCacheFull(#[from] ReplayCacheFull),
}

impl WptError {
    /// What the peer gets. It does not say which check failed, but whether it was the WIT's, since the drafts prescribe different
    /// statuses (draft-ietf-wimse-wpt-02, section 2.1; draft-ietf-wimse-workload-creds-02, section 5.2).
    pub fn answer(&self) -> Answer {
        match self {
            Self::Wit(_) => Answer::WIT,
            Self::ReplayCacheFull(_) => Answer::UNAVAILABLE,
            _ => Answer::WPT,
        }
    }
}

impl From<CompactError> for WptError {
    fn from(error: CompactError) -> Self {
        match error {
            CompactError::TooLong { length } => Self::TooLong { length },
            CompactError::NotCompact => Self::NotCompact,
            CompactError::Header => Self::Header,
        }
    }
}
