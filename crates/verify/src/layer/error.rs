//! Why a client gets no response that it can trust.

use countersign_core::{id::SpiffeId, wimse::signature::SignatureError};

use crate::prover::ProveError;

/// Why a request was not sent, or its response is not used. Never holds a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofLayerError {
    /// The proof is for the target of the request, and that is not whole.
    #[error("the request has no scheme and host, which its proof is for: name an audience")]
    NoTarget,
    /// A bearer token would be sent in the clear.
    #[error(
        "a JWT-SVID is not sent over {scheme}: anybody who sees it can use it; use https, or a proof of possession"
    )]
    NotHttps {
        /// Of the URI.
        scheme: String,
    },
    /// Messages of gRPC are not signed.
    #[error("the request is one of gRPC, for which HTTP signatures are not; use a WPT, a JWT-SVID or mTLS")]
    Grpc,
    /// The body of the request cannot be signed.
    #[error("the request is not signed: {reason}")]
    Body {
        /// Too long, or it ended early.
        reason: String,
    },
    /// No proof was made.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// There is no JWT-SVID for the audience now.
    #[error("the request has no JWT-SVID: {reason}")]
    Token {
        /// As the Workload API says.
        reason: String,
    },
    /// What was made cannot be a field.
    #[error("a field of the proof has a value that no field has")]
    Field,
    /// The server did not sign, or not for this request. A refusal by the server is not signed either.
    #[error("the response with status {status} is not used: {source}")]
    Response {
        /// What it says; it is not authenticated.
        status: u16,
        /// What is wrong with its signature.
        source: SignatureError,
    },
    /// The body of the response cannot be verified.
    #[error("the response is not verified: {reason}")]
    ResponseBody {
        /// Too long, or it ended early.
        reason: String,
    },
    /// The response is signed by another than was called.
    #[error("the response is signed by {id}, which is not the server that is expected")]
    Server {
        /// Who signed it.
        id: SpiffeId,
    },
    /// There are no bundles yet, or no longer.
    #[error("the response cannot be verified: there are no bundles now")]
    NoBundles,
}
