//! Proofs of this workload. Random values and times are the agent's, never the workload's.

use std::time::Duration;

use countersign_core::id::SpiffeId;
use countersign_core::wimse::signature::{
    CONTENT_DIGEST_FIELD, SIGNATURE_FIELD, SIGNATURE_INPUT_FIELD, SignRequest, SignResponse, SignedFields,
    content_digest_of_hash, sign_request, sign_response,
};
use countersign_core::wimse::wpt::{WptRequest, make_wpt};
use countersign_core::wimse::{Body, Field, TXN_TOKEN_FIELD, WIT_FIELD};
use countersign_verify::proof_socket::{Proof, ProveRequest, ProveResponse, RequestProof};
use jiff::Timestamp;

use super::refusal::ProofError;
use crate::publish::{Credentials, NO_WIT_SVID_NOW, NO_WIT_SVIDS, Svid, Wit};

/// The field of Workload Proof Tokens.
const AUTHORIZATION: &str = "Authorization";
/// How long a proof is valid: enough for a request that waits. Verifiers accept twice as much, and remember each proof for as long.
const LIFE: Duration = Duration::from_secs(30);

/// The proof of a request that the workload will send.
pub(super) fn request(ask: &ProveRequest, credentials: &Credentials, now: Timestamp) -> Result<Proof, ProofError> {
    let (svid, wit) = identity(ask.spiffe_id.as_deref(), credentials)?;
    let headers = &ask.request.headers;
    absent(headers, WIT_FIELD)?;
    match ask.proof {
        RequestProof::Wpt if ask.sign_response => Err(ProofError::Invalid(
            "sign_response is of a signature: a WPT cannot ask for a signed response".to_owned(),
        )),
        RequestProof::Wpt => {
            absent(headers, AUTHORIZATION)?;
            let asked = WptRequest {
                wit: &wit.token,
                audience: &ask.audience,
                txn_token: one(headers, TXN_TOKEN_FIELD)?,
                other_tokens: &[],
                life: life(wit, now),
                jti: rand::random(),
            };
            let value = make_wpt(&wit.key, &asked, now).map_err(|error| ProofError::Invalid(error.to_string()))?;
            let authorization = (AUTHORIZATION.to_owned(), value.as_str().to_owned());
            proof(svid, wit, vec![authorization], None, now)
        }
        RequestProof::HttpSignature => {
            let request = &ask.request;
            let digest = digest(headers, request.request(&[]).body);
            let fields = with(request.fields(), wit, digest.as_deref());
            let asked = SignRequest {
                audience: &ask.audience,
                life: life(wit, now),
                nonce: rand::random(),
                sign_response: ask.sign_response,
            };
            let signed = sign_request(&wit.key, &request.request(&fields), &asked, now)
                .map_err(|error| ProofError::Invalid(error.to_string()))?;
            signature(svid, wit, digest, signed, now)
        }
    }
}

/// The signature of a response that the workload will send.
pub(super) fn response(ask: &ProveResponse, credentials: &Credentials, now: Timestamp) -> Result<Proof, ProofError> {
    let (svid, wit) = identity(ask.spiffe_id.as_deref(), credentials)?;
    let headers = &ask.response.headers;
    absent(headers, WIT_FIELD)?;
    let digest = digest(headers, ask.response.response(&[]).body);
    let fields = with(ask.response.fields(), wit, digest.as_deref());
    let asked = SignResponse { request_nonce: &ask.request_nonce, life: life(wit, now), nonce: rand::random() };
    let of_request = ask.request.fields();
    let (request, response) = (ask.request.request(&of_request), ask.response.response(&fields));
    let signed = sign_response(&wit.key, &request, &response, &asked, now)
        .map_err(|error| ProofError::Invalid(error.to_string()))?;
    signature(svid, wit, digest, signed, now)
}

/// The identity that is asked for, or the first that has a WIT-SVID.
fn identity<'a>(wanted: Option<&str>, credentials: &'a Credentials) -> Result<(&'a Svid, &'a Wit), ProofError> {
    let wanted = wanted.map(str::parse::<SpiffeId>).transpose();
    let wanted = wanted.map_err(|error| ProofError::Invalid(format!("spiffe_id is not a SPIFFE ID: {error}")))?;
    let mut asked = credentials.svids.iter().filter(|svid| wanted.as_ref().is_none_or(|id| svid.id == *id)).peekable();
    if asked.peek().is_none() {
        return Err(ProofError::NoIdentity("this workload is not entitled to that SPIFFE ID".to_owned()));
    }
    let Some((svid, state)) = asked.find_map(|svid| Some((svid, svid.wit.as_ref()?))) else {
        return Err(ProofError::NoWit(NO_WIT_SVIDS.to_owned()));
    };
    let none_now = || ProofError::NotReady(NO_WIT_SVID_NOW.to_owned());
    Ok((svid, state.current.as_ref().ok_or_else(none_now)?))
}

/// As long as a proof may be valid, and no longer than its WIT.
fn life(wit: &Wit, now: Timestamp) -> Duration {
    let left = Duration::try_from(wit.expires_at.duration_since(now)).unwrap_or(Duration::ZERO);
    LIFE.min(left)
}

/// The value of `Content-Digest`, where there is a body and the message has none.
fn digest(headers: &[(String, String)], body: Body<'_>) -> Option<String> {
    let is_there = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(CONTENT_DIGEST_FIELD));
    match body {
        Body::Sha256(hash) if !is_there => Some(content_digest_of_hash(hash)),
        _ => None,
    }
}

/// The fields of a message with those that are signed and that the workload does not have yet.
fn with<'a>(mut fields: Vec<Field<'a>>, wit: &'a Wit, digest: Option<&'a str>) -> Vec<Field<'a>> {
    fields.push((WIT_FIELD, wit.token.as_bytes()));
    fields.extend(digest.map(|digest| (CONTENT_DIGEST_FIELD, digest.as_bytes())));
    fields
}

fn signature(
    svid: &Svid,
    wit: &Wit,
    digest: Option<String>,
    signed: SignedFields,
    now: Timestamp,
) -> Result<Proof, ProofError> {
    let SignedFields { signature_input, signature, nonce } = signed;
    let mut headers =
        vec![(SIGNATURE_INPUT_FIELD.to_owned(), signature_input), (SIGNATURE_FIELD.to_owned(), signature)];
    headers.extend(digest.map(|digest| (CONTENT_DIGEST_FIELD.to_owned(), digest)));
    proof(svid, wit, headers, Some(nonce), now)
}

fn proof(
    svid: &Svid,
    wit: &Wit,
    mut headers: Vec<(String, String)>,
    nonce: Option<String>,
    now: Timestamp,
) -> Result<Proof, ProofError> {
    headers.push((WIT_FIELD.to_owned(), wit.token.as_str().to_owned()));
    let expires_at = now.checked_add(life(wit, now)).map_err(|error| ProofError::Failed(error.to_string()))?;
    Ok(Proof { spiffe_id: svid.id.to_string(), headers, nonce, expires_at })
}

/// The only value of a field.
fn one<'a>(headers: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, ProofError> {
    let mut values =
        headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    let first = values.next();
    if values.next().is_some() {
        return Err(ProofError::Invalid(format!("the request has several fields {name}, of which one may be sent")));
    }
    Ok(first)
}

/// A field that the proof brings must not be there yet.
fn absent(headers: &[(String, String)], name: &str) -> Result<(), ProofError> {
    if headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name)) {
        return Err(ProofError::Invalid(format!("the message has a field {name} already, which the proof brings")));
    }
    Ok(())
}
