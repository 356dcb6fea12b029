//! Signed responses, verified against who was called (draft-ietf-wimse-http-signature-08, section 3.4).

use bytes::Bytes;
use countersign_core::{
    id::SpiffeId,
    wimse::{
        self, MemoryReplayCache, Policy,
        signature::{ExpectedResponse, SignatureError, verify_response},
    },
};
use http::{Response, response::Parts};
use http_body::Body;
use http_body_util::Full;
use jiff::Timestamp;

use super::{
    BoxError, ProofLayerError,
    buffer::{BufferError, buffer},
    message::{self, Head},
    proof::Proven,
};
use crate::{Authorizer, proof::Bundles};

/// Who signed a response; among the extensions of a response that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseSigner {
    id: SpiffeId,
    expires_at: Timestamp,
}

/// Whose signatures of responses are accepted.
pub(super) struct ExpectedSigner {
    pub(super) servers: Authorizer,
    pub(super) bundles: Box<dyn Bundles>,
}

impl ResponseSigner {
    /// Its SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When the signature ends.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

impl ExpectedSigner {
    /// The response, whole, if it answers the request that was sent, and is signed by a server that is expected.
    pub(super) async fn verify<R>(
        &self,
        sent: &Proven,
        response: Response<R>,
        limit: usize,
    ) -> Result<Response<Full<Bytes>>, ProofLayerError>
    where
        R: Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        let (mut parts, body) = response.into_parts();
        let failed = |error: BufferError| ProofLayerError::ResponseBody { reason: error.to_string() };
        let bytes = buffer(body, &parts.headers, limit).await.map_err(failed)?.bytes;
        let signer = self.signer(sent, &parts, &bytes, Timestamp::now())?;
        parts.extensions.insert(signer);
        Ok(Response::from_parts(parts, Full::new(bytes)))
    }

    fn signer(
        &self,
        sent: &Proven,
        response: &Parts,
        body: &Bytes,
        now: Timestamp,
    ) -> Result<ResponseSigner, ProofLayerError> {
        let bundles = self.bundles.wit_bundles().ok_or(ProofLayerError::NoBundles)?;
        let Head { method, uri, headers } = &sent.head;
        let request_fields = message::fields(headers);
        // Its body is not part of what a response signs.
        let asked = message::request(method, uri, headers, &request_fields, wimse::Body::Empty);
        let nonce = sent.nonce.as_deref().unwrap_or_default();
        let (status, fields) = (response.status.as_u16(), message::fields(&response.headers));
        let answered = wimse::Response { status, fields: &fields, body: message::body(body) };
        let expected = ExpectedResponse { request_nonce: nonce, signature_required: true };
        // It is verified once, against the nonce of its one request: there is nothing that could be replayed.
        let replays = MemoryReplayCache::new(1, 1);
        let refused = |source| ProofLayerError::Response { status, source };
        let proven = verify_response(&asked, &answered, expected, &Policy::new(&bundles, &[]), &replays, now)
            .map_err(refused)?
            .ok_or(refused(SignatureError::Missing))?;
        let id = proven.wit.id;
        if self.servers.permits(&id) {
            Ok(ResponseSigner { id, expires_at: proven.expires_at })
        } else {
            Err(ProofLayerError::Server { id })
        }
    }
}
