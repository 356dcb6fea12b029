//! Proofs of this workload for the messages that it sends, made by whatever has its key: a `Source` whose WIT-SVID came with its key, or
//! the agent, which never gives the key away.

mod error;
mod local;
#[cfg(feature = "workload-api")]
mod source;

use std::{borrow::Cow, fmt, pin::Pin, sync::Arc};

use countersign_core::{
    id::SpiffeId,
    wimse::{Request, Response},
};
use jiff::Timestamp;
use zeroize::Zeroizing;

pub use error::ProveError;
pub use local::Credential;

use crate::proof::Method;

/// Makes proofs.
pub trait Prover: Send + Sync {
    /// The proof of a request that will be sent.
    ///
    /// # Errors
    /// When none can be made, or not now.
    fn prove_request<'a>(&'a self, ask: &'a RequestToProve<'a>) -> Proving<'a>;

    /// The signature of a response that will be sent.
    ///
    /// # Errors
    /// When none can be made, or not now.
    fn prove_response<'a>(&'a self, ask: &'a ResponseToProve<'a>) -> Proving<'a>;
}

/// What [`Prover`] returns.
pub type Proving<'a> = Pin<Box<dyn Future<Output = Result<MessageProof, ProveError>> + Send + 'a>>;

/// A proof of possession in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "proof-socket", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum RequestProof {
    /// `wpt`: a Workload Proof Token.
    Wpt,
    /// `http-signature`: an HTTP message signature.
    HttpSignature,
}

/// A request that will be sent, and what its proof is to say.
#[derive(Clone, Copy, Debug)]
pub struct RequestToProve<'a> {
    /// The kind of proof.
    pub proof: RequestProof,
    /// Whom it is for: the target URI of the request, without query and fragment, or what else the recipient is addressed by.
    pub audience: &'a str,
    /// The request without the fields that are asked for. Of a Workload Proof Token its body does not matter.
    pub request: Request<'a>,
    /// Whether the response must be signed; of an HTTP signature alone.
    pub sign_response: bool,
    /// Names in lower case of the fields whose tokens a Workload Proof Token binds in `oth`, where the request has them. A `Txn-Token`
    /// is always bound.
    pub context_fields: &'a [String],
}

/// A response that will be sent, and the request that it answers.
#[derive(Clone, Copy, Debug)]
pub struct ResponseToProve<'a> {
    /// As it was received.
    pub request: Request<'a>,
    /// The response without the fields that are asked for.
    pub response: Response<'a>,
    /// The nonce of the request.
    pub request_nonce: &'a str,
}

/// The fields that prove who sent a message. They are secret until the proof ends: `Debug` shows none.
pub struct MessageProof {
    /// The identity that is proven.
    pub id: SpiffeId,
    /// The fields to add to the message: names in lower case, and values.
    pub fields: Vec<ProofField>,
    /// Of a signature: the nonce, by which the response to a request is verified.
    pub nonce: Option<String>,
    /// When the proof ends.
    pub expires_at: Timestamp,
}

/// A field: its name in lower case, and its value.
pub type ProofField = (Cow<'static, str>, Zeroizing<String>);

impl<P: Prover + ?Sized> Prover for Arc<P> {
    fn prove_request<'a>(&'a self, ask: &'a RequestToProve<'a>) -> Proving<'a> {
        (**self).prove_request(ask)
    }

    fn prove_response<'a>(&'a self, ask: &'a ResponseToProve<'a>) -> Proving<'a> {
        (**self).prove_response(ask)
    }
}

impl From<RequestProof> for Method {
    fn from(proof: RequestProof) -> Self {
        match proof {
            RequestProof::Wpt => Self::Wpt,
            RequestProof::HttpSignature => Self::HttpSignature,
        }
    }
}

impl fmt::Debug for MessageProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_ref()).collect();
        write!(f, "MessageProof({}, {names:?}, until {})", self.id, self.expires_at)
    }
}
