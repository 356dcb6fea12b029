//! The parameters of a signature (draft-ietf-wimse-http-signature-08, section 3).

use jiff::Timestamp;
use sfv::{BareItem, KeyRef, Parameters, key_ref};

use super::{SignatureError, TAG};

const CREATED: &KeyRef = key_ref("created");
const EXPIRES: &KeyRef = key_ref("expires");
const NONCE: &KeyRef = key_ref("nonce");
const TAG_KEY: &KeyRef = key_ref("tag");
const AUDIENCE: &KeyRef = key_ref("wimse-aud");
const SIGN_RESPONSE: &KeyRef = key_ref("wimse-sign-response");
const REQUEST_NONCE: &KeyRef = key_ref("wimse-req-nonce");
/// The key is in the WIT, and so is its algorithm.
const FORBIDDEN: [&str; 2] = ["keyid", "alg"];
/// The fewest characters of a nonce: a printable one of ASCII holds less than 6.6 bits, and 64 are needed.
const SHORTEST_NONCE: usize = 10;

/// What every signature says.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) created: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) nonce: String,
}

/// What else the signature of a request says.
pub(super) struct OfRequest {
    pub(super) audience: String,
    pub(super) sign_response: bool,
}

/// What else a signature that is made is to say.
#[derive(Clone, Copy)]
pub(super) enum Own<'a> {
    Request { audience: &'a str, sign_response: bool },
    Response { request_nonce: &'a str },
}

/// Whether a member of `Signature-Input` is the one of this profile.
pub(super) fn is_tagged(params: &Parameters) -> bool {
    params.get(TAG_KEY).and_then(BareItem::as_string).is_some_and(|tag| tag.as_str() == TAG)
}

impl Common {
    /// Those that requests and responses share.
    pub(super) fn read(params: &Parameters) -> Result<Self, SignatureError> {
        if let Some(name) = FORBIDDEN.into_iter().find(|name| params.contains_key(*name)) {
            return Err(SignatureError::ForbiddenParameter { name });
        }
        let common =
            Self { created: time(params, CREATED)?, expires: time(params, EXPIRES)?, nonce: text(params, NONCE)? };
        if common.nonce.len() < SHORTEST_NONCE {
            return Err(SignatureError::Nonce { length: common.nonce.len() });
        }
        Ok(common)
    }
}

impl OfRequest {
    pub(super) fn read(params: &Parameters) -> Result<Self, SignatureError> {
        forbid(params, REQUEST_NONCE)?;
        let sign_response = match params.get(SIGN_RESPONSE) {
            None => false,
            Some(value) => value.as_boolean().ok_or(parameter(SIGN_RESPONSE))?,
        };
        Ok(Self { audience: text(params, AUDIENCE)?, sign_response })
    }
}

/// `wimse-req-nonce`, in the signature of a response.
pub(super) fn request_nonce(params: &Parameters) -> Result<String, SignatureError> {
    forbid(params, AUDIENCE)?;
    forbid(params, SIGN_RESPONSE)?;
    text(params, REQUEST_NONCE)
}

/// The parameters of a signature that is made. `None` when a text has characters that a string cannot have (RFC 9651, section 3.3.3),
/// or a time is too far off for an integer.
pub(super) fn parameters(common: &Common, own: Own<'_>) -> Option<Parameters> {
    let mut params = Parameters::new();
    let mut insert = |name: &KeyRef, value: BareItem| {
        params.insert(name.to_owned(), value);
    };
    let text = |value: &str| sfv::String::from_string(value.to_owned()).ok().map(BareItem::from);
    insert(CREATED, BareItem::try_from(common.created.as_second()).ok()?);
    insert(EXPIRES, BareItem::try_from(common.expires.as_second()).ok()?);
    insert(NONCE, text(&common.nonce)?);
    insert(TAG_KEY, text(TAG)?);
    match own {
        Own::Request { audience, sign_response } => {
            insert(AUDIENCE, text(audience)?);
            if sign_response {
                insert(SIGN_RESPONSE, true.into());
            }
        }
        Own::Response { request_nonce } => insert(REQUEST_NONCE, text(request_nonce)?),
    }
    Some(params)
}

fn time(params: &Parameters, name: &'static KeyRef) -> Result<Timestamp, SignatureError> {
    let seconds = params.get(name).and_then(BareItem::as_integer).ok_or(parameter(name))?;
    Timestamp::from_second(seconds.into()).map_err(|_| parameter(name))
}

fn text(params: &Parameters, name: &'static KeyRef) -> Result<String, SignatureError> {
    let text = params.get(name).and_then(BareItem::as_string).ok_or(parameter(name))?;
    Ok(text.as_str().to_owned())
}

fn forbid(params: &Parameters, name: &'static KeyRef) -> Result<(), SignatureError> {
    if params.contains_key(name) { Err(SignatureError::ForbiddenParameter { name: name.as_str() }) } else { Ok(()) }
}

fn parameter(name: &'static KeyRef) -> SignatureError {
    SignatureError::Parameter { name: name.as_str() }
}
