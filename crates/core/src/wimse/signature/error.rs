//! Why the signature of a message is refused.

use jiff::Timestamp;

use super::digest::DigestError;
use super::{MAX_COMPONENTS, MAX_FIELD_LENGTH};
use crate::wimse::{Answer, ReplayCacheFull, WitFieldError};

/// Why a message does not prove who sent it; for the log. Never holds a token or a signature. The peer whose request it was gets
/// [`Self::answer`]; a response that is refused is discarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The WIT was refused.
    #[error(transparent)]
    Wit(#[from] WitFieldError),
    /// No signature of the profile.
    #[error("message has no signature with the tag wimse-workload-to-workload")]
    Missing,
    /// Several signatures of the profile.
    #[error("message has several signatures with the tag wimse-workload-to-workload")]
    Several,
    /// `Signature-Input` cannot be read.
    #[error(
        "Signature-Input is no dictionary of inner lists, each under its own label, of at most {MAX_FIELD_LENGTH} bytes"
    )]
    Input,
    /// `Signature` cannot be read, or lacks the signature.
    #[error(
        "Signature is no dictionary of byte sequences of at most {MAX_FIELD_LENGTH} bytes with the label of the signature"
    )]
    Field,
    /// More components than are looked at.
    #[error("signature covers {found} components, of which at most {MAX_COMPONENTS} are looked at")]
    TooManyComponents {
        /// How many there are.
        found: usize,
    },
    /// A component that cannot be derived here.
    #[error("signature covers {name}, which this profile does not know, or with parameters that it does not know")]
    UnknownComponent {
        /// Quoted and shortened.
        name: String,
    },
    /// A component is there twice.
    #[error("signature covers {name} twice")]
    RepeatedComponent {
        /// Quoted and shortened.
        name: String,
    },
    /// A component that must be covered is not.
    #[error("signature does not cover {name}")]
    NotCovered {
        /// Quoted and shortened.
        name: String,
    },
    /// A component that must not be covered is: path or query of `CONNECT`.
    #[error("signature covers {name}, which CONNECT has not")]
    ForbiddenComponent {
        /// Quoted and shortened.
        name: String,
    },
    /// A covered component has no value in the message.
    #[error("signature covers {name}, which the message has not, or with a line break")]
    NoComponent {
        /// Quoted and shortened.
        name: String,
    },
    /// A field of one value is there several times.
    #[error("message has several fields {name}")]
    RepeatedField {
        /// In lower case.
        name: &'static str,
    },
    /// A parameter is missing or of the wrong type.
    #[error("signature has no parameter {name}, or of a wrong type")]
    Parameter {
        /// Its name.
        name: &'static str,
    },
    /// A parameter is there that must not be.
    #[error("signature has the parameter {name}, which must not be there")]
    ForbiddenParameter {
        /// Its name.
        name: &'static str,
    },
    /// `nonce` is too short to hold 64 random bits.
    #[error("signature's nonce of {length} characters cannot hold 64 random bits")]
    Nonce {
        /// In characters.
        length: usize,
    },
    /// Not signed by the WIT's key.
    #[error("signature is not by the key of the WIT's cnf over this message")]
    Signature,
    /// There is a body and no `Content-Digest`.
    #[error("message has a body and no Content-Digest")]
    NoDigest,
    /// `Content-Digest` cannot be read, or has no sha-256.
    #[error("Content-Digest is no dictionary with a byte sequence sha-256")]
    Digest,
    /// `Content-Digest` is of another body.
    #[error("Content-Digest is not the hash of the body")]
    DigestMismatch,
    /// `wimse-aud` is no audience of this verifier, for this path.
    #[error("signature is not for this verifier and path: wimse-aud {audience}")]
    Audience {
        /// Quoted and shortened.
        audience: String,
    },
    /// `wimse-req-nonce` is not the nonce of the request.
    #[error("response is signed for another request: wimse-req-nonce is not the nonce that was sent")]
    RequestNonce,
    /// `created` is to come.
    #[error("signature was created at {0}, which is to come")]
    Created(Timestamp),
    /// `expires` has passed.
    #[error("signature expired at {0}")]
    Expired(Timestamp),
    /// `expires` is before `created`, or too long after it.
    #[error(
        "signature is valid from {created} to {expires}, which ends before it begins or is longer than a proof may be"
    )]
    Life {
        /// `created`.
        created: Timestamp,
        /// `expires`.
        expires: Timestamp,
    },
    /// The signature was used before.
    #[error("signature was used before")]
    Replayed,
    /// Whether the signature was used before cannot be remembered.
    #[error(transparent)]
    ReplayCacheFull(#[from] ReplayCacheFull),
}

impl SignatureError {
    /// What the peer gets whose request was refused. It does not say which check failed (draft-ietf-wimse-http-signature-08, section
    /// 3.6).
    pub fn answer(&self) -> Answer {
        match self {
            Self::ReplayCacheFull(_) => Answer::UNAVAILABLE,
            _ => Answer::SIGNATURE,
        }
    }
}

impl From<DigestError> for SignatureError {
    fn from(error: DigestError) -> Self {
        match error {
            DigestError::Missing => Self::NoDigest,
            DigestError::Malformed => Self::Digest,
            DigestError::Mismatch => Self::DigestMismatch,
        }
    }
}
