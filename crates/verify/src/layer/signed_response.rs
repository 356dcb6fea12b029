//! Responses that are signed, where the request asked for that (draft-ietf-wimse-http-signature-08, section 3.4).

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use countersign_core::wimse::{self, Answer};
use http::Response;
use http_body::Body;
use http_body_util::{Either, Full};

use super::{
    BoxError, MaybeBuffered,
    buffer::{Buffered, buffer},
    message::{self, Head},
    refused,
};
use crate::prover::{Prover, ResponseToProve};

/// How the response to one request is signed.
pub(super) struct ResponseSigning {
    pub(super) prover: Arc<dyn Prover>,
    /// The longest body, in bytes.
    pub(super) limit: usize,
    /// The request as it was received.
    pub(super) request: Head,
    /// The nonce of the request.
    pub(super) request_nonce: String,
}

impl ResponseSigning {
    /// The response with its signature. One that cannot be signed is replaced, since the caller must not take it for successful
    /// (draft-ietf-wimse-http-signature-08, section 3.6).
    pub(super) async fn sign<R>(self, response: Response<R>) -> Response<MaybeBuffered<R>>
    where
        R: Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        match self.try_sign(response).await {
            Ok(signed) => signed.map(Either::Right),
            Err(error) => {
                tracing::warn!(%error, "a response that must be signed is not; the caller gets a refusal instead");
                refused::response(Answer::SIGNED_RESPONSE_UNAVAILABLE).map(Either::Right)
            }
        }
    }

    async fn try_sign<R>(&self, response: Response<R>) -> Result<Response<Full<Bytes>>, Box<dyn Error + Send + Sync>>
    where
        R: Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        let (mut parts, body) = response.into_parts();
        let Buffered { bytes, has_trailers } = buffer(body, &parts.headers, self.limit).await?;
        if has_trailers {
            return Err("the response has trailers, which no signature covers".into());
        }
        let proof = {
            let Head { method, uri, headers } = &self.request;
            let request_fields = message::fields(headers);
            let fields = message::fields(&parts.headers);
            let ask = ResponseToProve {
                // Its body was verified with it, and is not part of what is signed.
                request: message::request(method, uri, headers, &request_fields, wimse::Body::Empty),
                response: wimse::Response {
                    status: parts.status.as_u16(),
                    fields: &fields,
                    body: message::body(&bytes),
                },
                request_nonce: &self.request_nonce,
            };
            self.prover.prove_response(&ask).await?
        };
        message::add(&proof, &mut parts.headers).map_err(|_| "the signature is no value of a field")?;
        Ok(Response::from_parts(parts, Full::new(bytes)))
    }
}
