//! Signing requests and responses (draft-ietf-wimse-http-signature-08, section 3; RFC 9421, section 3.1).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sfv::InnerList;

use super::base::{NoValue, signature_base};
use super::components::{Component, Message};
use super::digest::check_digest;
use super::parameters::{Common, Own, parameters};
use super::structured::{dictionary, list_text};
use super::tagged::Tagged;
use super::{SIGNATURE_FIELD, SIGNATURE_INPUT_FIELD};
use crate::jws::signature_octets;
use crate::key::{KeyError, Signer};
use crate::wimse::credential::wit_text;
use crate::wimse::{Body, Request, Response, WitFieldError};
use crate::wit::read_wit_svid;

/// The label of signatures that are made. It means nothing: readers look for the tag.
const LABEL: &str = "wimse";

/// What the signature of a request is to say.
#[derive(Clone, Copy, Debug)]
pub struct SignRequest<'a> {
    /// The target URI of the request, without query and fragment, or what else the recipient is addressed by.
    pub audience: &'a str,
    /// From now; whole seconds.
    pub life: Duration,
    /// Random, and used for this request alone.
    pub nonce: [u8; 16],
    /// Whether the response must be signed.
    pub sign_response: bool,
}

/// What the signature of a response is to say.
#[derive(Clone, Copy, Debug)]
pub struct SignResponse<'a> {
    /// The nonce of the request that it answers.
    pub request_nonce: &'a str,
    /// From now; whole seconds.
    pub life: Duration,
    /// Random, and used for this response alone.
    pub nonce: [u8; 16],
}

/// The fields that are added to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedFields {
    /// The value of `Signature-Input`.
    pub signature_input: String,
    /// The value of `Signature`.
    pub signature: String,
    /// The nonce as it stands in it, by which a response is verified.
    pub nonce: String,
}

/// Why a message was not signed. Never holds a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeSignatureError {
    /// The message has no WIT that can be read.
    #[error(transparent)]
    Wit(#[from] WitFieldError),
    /// The WIT has expired, and with it the right to use its key (draft-ietf-wimse-workload-creds-02, section 9.4).
    #[error("WIT expired at {0}; get a new one from the Workload API")]
    Expired(Timestamp),
    /// The key is not the one of the WIT.
    #[error("the key is not the one of the WIT's cnf, or signs by another algorithm")]
    KeyMismatch,
    /// The message has a signature under the same label or with the same tag, or one that cannot be read.
    #[error("message is signed already, or its fields Signature-Input and Signature cannot be read")]
    Signed,
    /// `Content-Digest` is missing or not that of the body.
    #[error("message has a body and no Content-Digest, or that of another body; add the one that content_digest makes")]
    Digest,
    /// A part of the message cannot be signed.
    #[error("{name} is missing, there several times, or holds a line break")]
    Component {
        /// Of the component.
        name: String,
    },
    /// The audience is empty, has a query or fragment, or characters that no parameter has.
    #[error(
        "audience or nonce is empty or not printable ASCII, or the audience has a query or fragment, which a target has not"
    )]
    Audience,
    /// Less than a second, or beyond time.
    #[error("lifetime is shorter than a second or ends after the year 9999")]
    Lifetime,
    /// The key did not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Signs `request` with `key`, the private half of its WIT's `cnf`. Its fields are complete but for what is returned:
/// `Workload-Identity-Token` is among them, and `Content-Digest` where there is a body.
///
/// # Errors
/// When the message, the key, the audience or the lifetime is not acceptable, or signing fails.
pub fn sign_request(
    key: &dyn Signer,
    request: &Request<'_>,
    ask: &SignRequest<'_>,
    now: Timestamp,
) -> Result<SignedFields, MakeSignatureError> {
    if ask.audience.is_empty() || ask.audience.contains(['?', '#']) {
        return Err(MakeSignatureError::Audience);
    }
    let own = Own::Request { audience: ask.audience, sign_response: ask.sign_response };
    sign(key, Message::Request(request), request.body, &common(ask.life, ask.nonce, now)?, own, now)
}

/// Signs `response` to `request` with `key`, the private half of the `cnf` of the response's WIT. Its fields are complete but for what
/// is returned.
///
/// # Errors
/// When the message, the key or the lifetime is not acceptable, or signing fails.
pub fn sign_response(
    key: &dyn Signer,
    request: &Request<'_>,
    response: &Response<'_>,
    ask: &SignResponse<'_>,
    now: Timestamp,
) -> Result<SignedFields, MakeSignatureError> {
    if ask.request_nonce.is_empty() {
        return Err(MakeSignatureError::Audience);
    }
    let own = Own::Response { request_nonce: ask.request_nonce };
    let message = Message::Response(request, response);
    sign(key, message, response.body, &common(ask.life, ask.nonce, now)?, own, now)
}

fn common(life: Duration, nonce: [u8; 16], now: Timestamp) -> Result<Common, MakeSignatureError> {
    let life = i64::try_from(life.as_secs()).ok().filter(|life| *life > 0).ok_or(MakeSignatureError::Lifetime)?;
    let time = |seconds: Option<i64>| seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let created = time(Some(now.as_second())).ok_or(MakeSignatureError::Lifetime)?;
    let expires = time(now.as_second().checked_add(life)).ok_or(MakeSignatureError::Lifetime)?;
    Ok(Common { created, expires, nonce: URL_SAFE_NO_PAD.encode(nonce) })
}

fn sign(
    key: &dyn Signer,
    message: Message<'_>,
    body: Body<'_>,
    common: &Common,
    own: Own<'_>,
    now: Timestamp,
) -> Result<SignedFields, MakeSignatureError> {
    let wit = read_wit_svid(wit_text(message.fields())?).map_err(WitFieldError::from)?;
    if wit.expires_at <= now {
        return Err(MakeSignatureError::Expired(wit.expires_at));
    }
    if !wit.confirmation.is_of(key) {
        return Err(MakeSignatureError::KeyMismatch);
    }
    check_unsigned(message)?;
    if let Some(name) = message.repeated_field() {
        return Err(MakeSignatureError::Component { name: name.to_owned() });
    }
    check_digest(message.fields(), body).map_err(|_| MakeSignatureError::Digest)?;

    let components = message.required();
    let items = components.iter().map(Component::item).collect::<Option<Vec<_>>>();
    let params = parameters(common, own).ok_or(MakeSignatureError::Audience)?;
    let list = InnerList::with_params(items.ok_or(MakeSignatureError::Signed)?, params);
    let base = signature_base(message, &components, &list)
        .map_err(|NoValue(component)| MakeSignatureError::Component { name: component.to_string() })?;
    let signature = STANDARD.encode(signature_octets(key, &base)?);
    Ok(SignedFields {
        signature_input: format!("{LABEL}={}", list_text(&list)),
        signature: format!("{LABEL}=:{signature}:"),
        nonce: common.nonce.clone(),
    })
}

/// Signatures of others may be there, but none of this profile, and none under the label that is used.
fn check_unsigned(message: Message<'_>) -> Result<(), MakeSignatureError> {
    if !matches!(Tagged::find(message.fields()), Ok(None)) {
        return Err(MakeSignatureError::Signed);
    }
    for field in [SIGNATURE_INPUT_FIELD, SIGNATURE_FIELD] {
        let labels = dictionary(message.fields(), field).map_err(|_| MakeSignatureError::Signed)?;
        if labels.contains_key(LABEL) {
            return Err(MakeSignatureError::Signed);
        }
    }
    Ok(())
}
