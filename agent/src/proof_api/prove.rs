//! Proofs of this workload. Random values and times are the agent's, never the workload's.

use countersign_core::id::SpiffeId;
use countersign_verify::proof_socket::{Proof, ProveRequest, ProveResponse};
use countersign_verify::prover::{Credential, MessageProof, ProveError, RequestToProve, ResponseToProve};
use jiff::Timestamp;

use super::refusal::ProofError;
use crate::publish::{Credentials, NO_WIT_SVID_NOW, NO_WIT_SVIDS};

/// The proof of a request that the workload will send.
pub(super) fn request(ask: &ProveRequest, credentials: &Credentials, now: Timestamp) -> Result<Proof, ProofError> {
    let credential = credential(ask.spiffe_id.as_deref(), credentials)?;
    let fields = ask.request.fields();
    let asked = RequestToProve {
        proof: ask.proof,
        audience: &ask.audience,
        request: ask.request.request(&fields),
        sign_response: ask.sign_response,
        context_fields: &[],
    };
    proof(credential.prove_request(&asked, now))
}

/// The signature of a response that the workload will send.
pub(super) fn response(ask: &ProveResponse, credentials: &Credentials, now: Timestamp) -> Result<Proof, ProofError> {
    let credential = credential(ask.spiffe_id.as_deref(), credentials)?;
    let (of_request, of_response) = (ask.request.fields(), ask.response.fields());
    let asked = ResponseToProve {
        request: ask.request.request(&of_request),
        response: ask.response.response(&of_response),
        request_nonce: &ask.request_nonce,
    };
    proof(credential.prove_response(&asked, now))
}

/// That of the identity that is asked for, or of the first that has WIT-SVIDs.
fn credential<'a>(wanted: Option<&str>, credentials: &'a Credentials) -> Result<Credential<'a>, ProofError> {
    let wanted = wanted.map(str::parse::<SpiffeId>).transpose();
    let wanted = wanted.map_err(|error| ProofError::Invalid(format!("spiffe_id is not a SPIFFE ID: {error}")))?;
    let mut asked = credentials.svids.iter().filter(|svid| wanted.as_ref().is_none_or(|id| svid.id == *id)).peekable();
    if asked.peek().is_none() {
        return Err(ProofError::NoIdentity("this workload is not entitled to that SPIFFE ID".to_owned()));
    }
    let Some((svid, state)) = asked.find_map(|svid| Some((svid, svid.wit.as_ref()?))) else {
        return Err(ProofError::NoWit(NO_WIT_SVIDS.to_owned()));
    };
    let wit = state.current.as_ref().ok_or_else(|| ProofError::NotReady(NO_WIT_SVID_NOW.to_owned()))?;
    Ok(Credential { id: &svid.id, wit: &wit.token, expires_at: wit.expires_at, key: &wit.key })
}

fn proof(made: Result<MessageProof, ProveError>) -> Result<Proof, ProofError> {
    let MessageProof { id, fields, nonce, expires_at } =
        made.map_err(|error| ProofError::Invalid(error.to_string()))?;
    let headers = fields.into_iter().map(|(name, value)| (name.into_owned(), value.as_str().to_owned())).collect();
    Ok(Proof { spiffe_id: id.to_string(), headers, nonce, expires_at })
}
