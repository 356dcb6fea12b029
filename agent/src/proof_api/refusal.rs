//! Why a request to the socket has no answer. What it says goes to the workload, never into the log.

use std::time::Duration;

use countersign_verify::proof_socket::ErrorMessage;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Serialize;

/// A body in whole.
pub(super) type Body = Full<Bytes>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProofError {
    #[error("no such method: POST /v1/prove-request, /v1/verify-request, /v1/prove-response or /v1/verify-response")]
    NotFound,
    #[error("the method must be POST")]
    NotPost,
    /// SPIFFE Workload Endpoint, section 3: a request without it may be a server-side request forgery.
    #[error("the field `workload.spiffe.io: true` is missing")]
    NoHeader,
    #[error("the request is longer than {limit} bytes: send the hash of a body (body_sha256), not the body")]
    TooLong { limit: usize },
    #[error("the request did not arrive within {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error("more requests than are answered; ask again in {} ms", .0.as_millis())]
    TooMany(Duration),
    #[error("the request cannot be read: {0}")]
    Malformed(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NoIdentity(String),
    #[error("{0}")]
    NoWit(String),
    #[error("{0}")]
    NotReady(String),
    #[error("the proof could not be made: {0}")]
    Failed(String),
}

impl ProofError {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::NoIdentity(_) | Self::NoWit(_) => StatusCode::NOT_FOUND,
            Self::NotPost => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoHeader | Self::Malformed(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut response = json(self.status(), &ErrorMessage { error: self.to_string() });
        if let Self::TooMany(wait) = self {
            let seconds = wait.as_secs_f64().ceil().max(1.0);
            if let Ok(value) = format!("{seconds:.0}").parse() {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

/// A response of JSON.
pub(super) fn json(status: StatusCode, message: &impl Serialize) -> Response<Body> {
    // Structs of texts always have a form as JSON.
    let body = serde_json::to_vec(message).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
