//! Proofs by the agent.

use countersign_core::wimse::{
    Body, Field, Request, Response, TXN_TOKEN_FIELD, WIT_FIELD,
    signature::{CONTENT_DIGEST_FIELD, SIGNATURE_FIELD, SIGNATURE_INPUT_FIELD},
};
use zeroize::Zeroizing;

use super::{
    BodyHash, Proof, ProofSocket, ProofSocketError, ProveRequest, ProveResponse, RequestDescription,
    ResponseDescription,
};
use crate::prover::{MessageProof, ProveError, Prover, Proving, RequestToProve, ResponseToProve};

impl Prover for ProofSocket {
    /// The agent binds a `Txn-Token` and no other tokens: [`RequestToProve::context_fields`] must be empty.
    fn prove_request<'a>(&'a self, ask: &'a RequestToProve<'a>) -> Proving<'a> {
        Box::pin(async move {
            if !ask.context_fields.is_empty() {
                let reason = "the agent binds no tokens but Txn-Token: configure no context fields".to_owned();
                return Err(ProveError::Refused { reason });
            }
            let asked = ProveRequest {
                spiffe_id: None,
                proof: ask.proof,
                audience: ask.audience.to_owned(),
                request: described(&ask.request)?,
                sign_response: ask.sign_response,
            };
            received(ProofSocket::prove_request(self, &asked).await?)
        })
    }

    fn prove_response<'a>(&'a self, ask: &'a ResponseToProve<'a>) -> Proving<'a> {
        Box::pin(async move {
            let asked = ProveResponse {
                spiffe_id: None,
                request: described(&ask.request)?,
                response: described_response(&ask.response)?,
                request_nonce: ask.request_nonce.to_owned(),
            };
            received(ProofSocket::prove_response(self, &asked).await?)
        })
    }
}

fn described(request: &Request<'_>) -> Result<RequestDescription, ProveError> {
    let text = |text: Option<&str>| text.map(str::to_owned);
    Ok(RequestDescription {
        method: request.method.to_owned(),
        path: request.path.to_owned(),
        query: text(request.query),
        authority: text(request.authority),
        headers: headers(request.fields)?,
        body_sha256: BodyHash::of(request.body),
    })
}

fn described_response(response: &Response<'_>) -> Result<ResponseDescription, ProveError> {
    let headers = headers(response.fields)?;
    Ok(ResponseDescription { status: response.status, headers, body_sha256: BodyHash::of(response.body) })
}

/// The fields that proofs cover, and those of signatures: others, such as cookies, are not the agent's business.
const DESCRIBED: [&str; 7] = [
    "authorization",
    CONTENT_DIGEST_FIELD,
    "content-type",
    SIGNATURE_FIELD,
    SIGNATURE_INPUT_FIELD,
    TXN_TOKEN_FIELD,
    WIT_FIELD,
];

/// In JSON a value is text.
fn headers(fields: &[Field<'_>]) -> Result<Vec<(String, String)>, ProveError> {
    let header = |(name, value): &Field<'_>| match std::str::from_utf8(value) {
        Ok(value) => Ok(((*name).to_owned(), value.to_owned())),
        Err(_) => {
            let reason = format!("the value of {name} is not UTF-8, in which messages are described to the agent");
            Err(ProveError::Refused { reason })
        }
    };
    let is_described = |(name, _): &&Field<'_>| DESCRIBED.iter().any(|described| name.eq_ignore_ascii_case(described));
    fields.iter().filter(is_described).map(header).collect()
}

fn received(proof: Proof) -> Result<MessageProof, ProveError> {
    let Proof { spiffe_id, headers, nonce, expires_at } = proof;
    let id = spiffe_id.parse().map_err(|_| ProofSocketError::Malformed)?;
    let field = |(name, value): (String, String)| (name.to_ascii_lowercase().into(), Zeroizing::new(value));
    Ok(MessageProof { id, fields: headers.into_iter().map(field).collect(), nonce, expires_at })
}

impl From<ProofSocketError> for ProveError {
    fn from(error: ProofSocketError) -> Self {
        let reason = error.to_string();
        match error {
            ProofSocketError::Status { status: 400..=407 | 409..=428 | 430..=499, .. } => Self::Refused { reason },
            _ => Self::Unavailable { reason },
        }
    }
}

impl BodyHash {
    /// `None` of a message without a body.
    fn of(body: Body<'_>) -> Option<Self> {
        match body {
            Body::Empty | Body::Bytes([]) => None,
            Body::Bytes(bytes) => Some(Self::of_bytes(bytes)),
            Body::Sha256(hash) => Some(Self(hash)),
        }
    }
}
