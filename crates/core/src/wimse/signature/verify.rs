//! Verification of signed requests and responses (draft-ietf-wimse-http-signature-08, section 3; RFC 9421, section 3.2).

use jiff::{SignedDuration, Timestamp};

use super::SignatureError;
use super::base::{NoValue, signature_base};
use super::components::Message;
use super::digest::check_digest;
use super::parameters::{Common, OfRequest, request_nonce};
use super::tagged::Tagged;
use crate::jws::quoted;
use crate::wimse::credential::verify_wit;
use crate::wimse::replay::ProofKind;
use crate::wimse::{Body, Policy, Proven, ReplayCache, ReplayKey, Request, Response, Seen, later};
use crate::wit::WitClaims;

/// A verified request.
#[derive(Clone, Debug, PartialEq)]
pub struct ProvenRequest {
    /// Who sent it.
    pub sender: Proven,
    /// `nonce`, which a signed response repeats.
    pub nonce: String,
    /// Whether the sender accepts nothing but a signed response: one that cannot be signed must not be successful.
    pub sign_response: bool,
}

/// What the sender of a request expects of the response.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedResponse<'a> {
    /// The `nonce` of the request.
    pub request_nonce: &'a str,
    /// Whether the request had `wimse-sign-response`, or an unsigned response is refused for another reason.
    pub signature_required: bool,
}

/// Verifies who sent `request`: its WIT, its signature, and its body. The signature is remembered in `replays` once everything else is
/// verified.
///
/// # Errors
/// With the first rule that the request breaks.
pub fn verify_request(
    request: &Request<'_>,
    policy: &Policy<'_>,
    replays: &(impl ReplayCache + ?Sized),
    now: Timestamp,
) -> Result<ProvenRequest, SignatureError> {
    let message = Message::Request(request);
    let (wit, _) = verify_wit(request.fields, policy, now)?;
    let signed = Tagged::find(request.fields)?.ok_or(SignatureError::Missing)?;
    let common = Common::read(&signed.list.params)?;
    let OfRequest { audience, sign_response } = OfRequest::read(&signed.list.params)?;
    check_message(message, request.body, &signed, &wit)?;

    if !policy.is_addressed(&audience, request.path) {
        return Err(SignatureError::Audience { audience: quoted(&audience) });
    }
    check_times(&common, policy, now)?;
    remember(&wit, ProofKind::Request, &common, replays, now)?;
    let sender = Proven { wit, audience: Some(audience), expires_at: common.expires, bound: bound(&signed) };
    Ok(ProvenRequest { sender, nonce: common.nonce, sign_response })
}

/// Verifies who sent `response` to `request`. `None` when it is not signed, and need not be: then nothing is known of it.
///
/// # Errors
/// With the first rule that the response breaks; [`SignatureError::Missing`] when it is not signed and must be.
pub fn verify_response(
    request: &Request<'_>,
    response: &Response<'_>,
    expected: ExpectedResponse<'_>,
    policy: &Policy<'_>,
    replays: &(impl ReplayCache + ?Sized),
    now: Timestamp,
) -> Result<Option<Proven>, SignatureError> {
    let message = Message::Response(request, response);
    let Some(signed) = Tagged::find(response.fields)? else {
        return if expected.signature_required { Err(SignatureError::Missing) } else { Ok(None) };
    };
    let (wit, _) = verify_wit(response.fields, policy, now)?;
    let common = Common::read(&signed.list.params)?;
    let answered = request_nonce(&signed.list.params)?;
    check_message(message, response.body, &signed, &wit)?;

    if answered != expected.request_nonce {
        return Err(SignatureError::RequestNonce);
    }
    check_times(&common, policy, now)?;
    remember(&wit, ProofKind::Response, &common, replays, now)?;
    Ok(Some(Proven { wit, audience: None, expires_at: common.expires, bound: bound(&signed) }))
}

/// Whether the signature covers what it must, is by the WIT's key, and covers this body.
fn check_message(message: Message<'_>, body: Body<'_>, signed: &Tagged, wit: &WitClaims) -> Result<(), SignatureError> {
    if let Some(name) = message.repeated_field() {
        return Err(SignatureError::RepeatedField { name });
    }
    if let Some(component) = signed.components.iter().find(|component| message.forbids(component)) {
        return Err(SignatureError::ForbiddenComponent { name: component.to_string() });
    }
    let is_covered = |component| signed.components.contains(component);
    if let Some(component) = message.required().iter().find(|component| !is_covered(component)) {
        return Err(SignatureError::NotCovered { name: component.to_string() });
    }
    let base = signature_base(message, &signed.components, &signed.list)
        .map_err(|NoValue(component)| SignatureError::NoComponent { name: component.to_string() })?;
    wit.confirmation.verify(&base, &signed.signature).map_err(|_| SignatureError::Signature)?;
    Ok(check_digest(message.fields(), body)?)
}

fn check_times(common: &Common, policy: &Policy<'_>, now: Timestamp) -> Result<(), SignatureError> {
    let Common { created, expires, .. } = *common;
    let longest = SignedDuration::try_from(policy.max_proof_life).unwrap_or(SignedDuration::MAX);
    if expires <= created || expires.duration_since(created) > longest {
        return Err(SignatureError::Life { created, expires });
    }
    if created > later(now, policy.skew) {
        return Err(SignatureError::Created(created));
    }
    if expires <= now { Err(SignatureError::Expired(expires)) } else { Ok(()) }
}

fn remember(
    wit: &WitClaims,
    kind: ProofKind,
    common: &Common,
    replays: &(impl ReplayCache + ?Sized),
    now: Timestamp,
) -> Result<(), SignatureError> {
    let key = ReplayKey::new(&wit.confirmation, kind, &common.nonce);
    match replays.remember(&key, common.expires, now)? {
        Seen::First => Ok(()),
        Seen::Again => Err(SignatureError::Replayed),
    }
}

/// The fields that the signature covers.
fn bound(signed: &Tagged) -> Vec<String> {
    signed.components.iter().filter_map(|component| component.field().map(str::to_owned)).collect()
}
