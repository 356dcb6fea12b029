//! Requests that a layer refuses.

use bytes::Bytes;
use countersign_core::wimse::{Answer, Problem};
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::Full;

use super::buffer::BufferError;
use crate::proof::Refusal;

/// Codes of gRPC.
const PERMISSION_DENIED: &str = "7";
const UNIMPLEMENTED: &str = "12";
const UNAVAILABLE: &str = "14";
const UNAUTHENTICATED: &str = "16";

/// Why a request does not reach the service; for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Proof(#[from] Refusal),
    #[error("the signed request is refused: {0}")]
    Body(#[from] BufferError),
    #[error("the request is one of gRPC, for which HTTP signatures are not; use a WPT, a JWT-SVID or mTLS")]
    SignedGrpc,
    #[error("the request asks for a signed response, and this service signs none")]
    SignedResponse,
}

impl Refused {
    pub(super) fn answer(&self) -> Answer {
        match self {
            Self::Proof(refusal) => refusal.answer(),
            // It says nothing about the proof (RFC 9110, section 15.5.14).
            Self::Body(BufferError::TooLong { .. }) => Answer { status: 413, challenge: None, problem: None },
            Self::Body(BufferError::TooSlow) => Answer { status: 408, challenge: None, problem: None },
            Self::Body(_) | Self::SignedGrpc => Answer::SIGNATURE,
            Self::SignedResponse => Answer::SIGNED_RESPONSE_UNSUPPORTED,
        }
    }
}

/// The response to a call of gRPC that is refused: HTTP says 200, and a field how the call ended (gRPC over HTTP/2, "Responses").
pub(super) fn grpc_response(answer: Answer) -> Response<Full<Bytes>> {
    let code = match answer.status {
        403 => PERMISSION_DENIED,
        501 => UNIMPLEMENTED,
        503 => UNAVAILABLE,
        _ => UNAUTHENTICATED,
    };
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    if let Some(challenge) = answer.challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// The response to a request that is refused.
pub(super) fn response(answer: Answer) -> Response<Full<Bytes>> {
    let body = answer.body();
    let has_body = body.is_some();
    let mut response = Response::new(Full::from(body.unwrap_or_default()));
    // Each answer has a status of HTTP.
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
    }
    if let Some(challenge) = answer.challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}
