//! Proofs of others.

use std::sync::Arc;

use countersign_core::wimse::signature::{ExpectedResponse, verify_response};
use countersign_core::wimse::{Answer, Audience, MemoryReplayCache, Policy};
use countersign_verify::Authorizer;
use countersign_verify::proof::{AuthenticatedRequest, Authenticator, SharedReplayCache};
use countersign_verify::proof_socket::{
    AcceptedProof, Refused, VerifiedRequest, VerifiedResponse, VerifyRequest, VerifyResponse,
};
use jiff::Timestamp;

use super::refusal::ProofError;
use crate::publish::Credentials;

/// Who sent a request that the workload received.
pub(super) async fn request(
    ask: &VerifyRequest,
    credentials: &Arc<Credentials>,
    replays: Arc<dyn SharedReplayCache>,
    now: Timestamp,
) -> Result<Result<VerifiedRequest, Refused>, ProofError> {
    let authenticator = authenticator(ask, credentials, replays)?;
    let fields = ask.request.fields();
    let request = ask.request.request(&fields);
    let (caller, signature) = match authenticator.authenticate(&request, None, now).await {
        Ok(AuthenticatedRequest { caller, signature }) => (caller, signature),
        Err(refusal) => return Ok(Err(refused(refusal.to_string(), refusal.answer()))),
    };
    let proof = AcceptedProof::from_method(caller.method());
    let (Some(proof), Some(expires_at)) = (proof, caller.expires_at()) else {
        return Err(ProofError::Failed("a caller without a proof was accepted".to_owned()));
    };
    Ok(Ok(VerifiedRequest {
        spiffe_id: caller.id().to_string(),
        proof,
        expires_at,
        bound: caller.bound().to_vec(),
        sign_response: signature.as_ref().is_some_and(|signature| signature.sign_response),
        nonce: signature.map(|signature| signature.nonce),
    }))
}

/// Who signed a response that the workload received.
pub(super) fn response(
    ask: &VerifyResponse,
    credentials: &Credentials,
    now: Timestamp,
) -> Result<Result<VerifiedResponse, Refused>, ProofError> {
    let servers = authorizer(&ask.servers, "servers")?;
    let (of_request, of_response) = (ask.request.fields(), ask.response.fields());
    let (request, response) = (ask.request.request(&of_request), ask.response.response(&of_response));
    let expected = ExpectedResponse { request_nonce: &ask.request_nonce, signature_required: ask.signature_required };
    let policy = Policy::new(&credentials.trust, &[]);
    // It is bound to one request by its nonce, and a request is answered once.
    let replays = MemoryReplayCache::new(1, 1);
    let signer = match verify_response(&request, &response, expected, &policy, &replays, now) {
        Ok(signer) => signer,
        Err(error) => return Ok(Err(refused(format!("the response is refused: {error}"), error.answer()))),
    };
    let Some(signer) = signer else { return Ok(Ok(VerifiedResponse { spiffe_id: None })) };
    let id = signer.wit.id;
    if !(servers.permits(&id) && credentials.accepts(&id)) {
        return Ok(Err(refused(format!("the response was signed by {id}, which is not expected"), Answer::SIGNATURE)));
    }
    Ok(Ok(VerifiedResponse { spiffe_id: Some(id.to_string()) }))
}

fn authenticator(
    ask: &VerifyRequest,
    credentials: &Arc<Credentials>,
    replays: Arc<dyn SharedReplayCache>,
) -> Result<Authenticator, ProofError> {
    let trust = Arc::clone(&credentials.trust);
    let mut builder = Authenticator::builder(move || Some(Arc::clone(&trust)))
        .callers(authorizer(&ask.callers, "callers")?)
        .limit(accepted_paths(credentials))
        .replay_cache(replays);
    for proof in &ask.proofs {
        builder = match proof {
            AcceptedProof::Wpt => builder.wpt(),
            AcceptedProof::HttpSignature => builder.http_signature(),
            AcceptedProof::JwtSvid => {
                let missing = || ProofError::Invalid("jwt_audience is missing: it names this service".to_owned());
                builder.jwt_svid(ask.jwt_audience.clone().ok_or_else(missing)?)
            }
        };
    }
    for audience in &ask.audiences {
        builder = builder.audience(Audience::exactly(audience.clone()));
    }
    for origin in &ask.origins {
        let audience = Audience::targets_of(origin.clone());
        builder = builder.audience(audience.map_err(|error| ProofError::Invalid(format!("origins: {error}")))?);
    }
    builder.build().map_err(|error| ProofError::Invalid(error.to_string()))
}

/// Everybody whose trust domain is trusted, where nobody is named.
fn authorizer(texts: &[String], member: &str) -> Result<Authorizer, ProofError> {
    if texts.is_empty() {
        return Ok(Authorizer::anybody());
    }
    Authorizer::parse(texts.iter().map(String::as_str))
        .map_err(|error| ProofError::Invalid(format!("{member}: {error}")))
}

/// Of a foreign trust domain, the paths that are accepted here.
fn accepted_paths(credentials: &Credentials) -> Authorizer {
    let restricted = credentials.terms.iter().filter_map(|(domain, terms)| Some((domain, terms.paths.as_ref()?)));
    restricted.fold(Authorizer::anybody(), |all, (domain, paths)| all.only_patterns(domain.clone(), paths))
}

fn refused(reason: String, answer: Answer) -> Refused {
    Refused { reason, response: answer.into() }
}
