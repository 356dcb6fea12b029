//! A layer of clients: the proof of who sends a request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use countersign_core::wimse;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Either, Full};
use tower::{Layer, Service};

use super::{
    BoxError, DEFAULT_BODY_LIMIT, MaybeBuffered, ProofAudience, ProofLayerError,
    buffer::{BufferError, buffer_request},
    message::{self, Head},
    outgoing::Proving,
    take_ready,
    verified_response::ExpectedSigner,
};
#[cfg(feature = "workload-api")]
use crate::Source;
use crate::{
    Authorizer,
    proof::Bundles,
    prover::{Prover, RequestProof},
};

/// Adds to each request the proof of who sent it. Make one for each server that is called, as with configurations of TLS: what is proven
/// is for one audience, and the signer of a response is expected to be one server.
///
/// A request is proven once. A client that sends it again, after a redirect or an error, must do so outside of this layer: the server
/// refuses a proof that it has seen.
#[derive(Clone)]
pub struct ProofLayer(Arc<Config>);

#[derive(Clone)]
pub(super) struct Config {
    pub(super) proving: Proving,
    pub(super) body_limit: usize,
    pub(super) expected: Option<Arc<ExpectedSigner>>,
}

/// What [`ProofLayer`] makes of a client. Its errors are those of the client, and [`ProofLayerError`].
#[derive(Clone)]
pub struct ProofService<S> {
    inner: S,
    config: Arc<Config>,
}

impl ProofLayer {
    /// A Workload Proof Token for `audience` in each request (draft-ietf-wimse-wpt-02). It binds neither method nor query nor body: where
    /// these matter, and on connections that others read, use [`Self::http_signature`].
    #[must_use]
    pub fn wpt(prover: impl Prover + 'static, audience: impl Into<ProofAudience>) -> Self {
        Self::possession(prover, RequestProof::Wpt, audience.into())
    }

    /// An HTTP message signature for `audience` in each request (draft-ietf-wimse-http-signature-08), over method, path, query and
    /// body. Bodies are kept in memory for that; see [`Self::body_limit`].
    #[must_use]
    pub fn http_signature(prover: impl Prover + 'static, audience: impl Into<ProofAudience>) -> Self {
        Self::possession(prover, RequestProof::HttpSignature, audience.into())
    }

    /// A JWT-SVID for `audience` in each request. Anybody who sees it can use it until it expires: a request whose URI has another scheme
    /// than `https` is not sent, and one without a scheme is for connections with TLS alone.
    #[cfg(feature = "workload-api")]
    #[must_use]
    pub fn jwt_svid(source: Source, audience: impl Into<String>) -> Self {
        Self::of(Proving::JwtSvid { source, audience: audience.into() })
    }

    /// Names in lower case of the fields whose tokens a Workload Proof Token binds where a request has them, beside `Txn-Token`: those
    /// that the server is configured to use.
    #[must_use]
    pub fn context_fields(self, names: &[&str]) -> Self {
        self.with(|config| {
            #[cfg_attr(
                not(feature = "workload-api"),
                allow(irrefutable_let_patterns, reason = "the other is left out")
            )]
            if let Proving::Possession { context_fields, .. } = &mut config.proving {
                *context_fields = names.iter().map(|name| name.to_ascii_lowercase()).collect();
            }
        })
    }

    /// The longest body, in bytes, of a request that is signed, and of a response whose signature is verified; 1 MiB otherwise. Longer
    /// ones are an error.
    #[must_use]
    pub fn body_limit(self, bytes: usize) -> Self {
        self.with(|config| config.body_limit = bytes)
    }

    /// Asks for signed responses, and accepts no others: each must be signed by a server that `servers` permits, by the WIT authorities of
    /// `bundles`, for the request that it answers. [`ResponseSigner`](super::ResponseSigner) is then among its extensions. For HTTP
    /// signatures: only these can ask for signed responses.
    ///
    /// Refusals of servers, and of proxies before them, are not signed, so they are an error too; its status is not authenticated.
    #[must_use]
    pub fn expect_signed_responses(self, servers: Authorizer, bundles: impl Bundles + 'static) -> Self {
        let expected = ExpectedSigner { servers, bundles: Box::new(bundles) };
        self.with(|config| config.expected = Some(Arc::new(expected)))
    }

    #[cfg(feature = "reqwest")]
    pub(super) fn config(&self) -> &Arc<Config> {
        &self.0
    }

    fn possession(prover: impl Prover + 'static, proof: RequestProof, audience: ProofAudience) -> Self {
        Self::of(Proving::Possession { prover: Arc::new(prover), proof, audience, context_fields: Vec::new() })
    }

    fn of(proving: Proving) -> Self {
        Self(Arc::new(Config { proving, body_limit: DEFAULT_BODY_LIMIT, expected: None }))
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl<S> Layer<S> for ProofLayer {
    type Service = ProofService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ProofService { inner, config: Arc::clone(&self.0) }
    }
}

impl<S, B, R> Service<Request<B>> for ProofService<S>
where
    S: Service<Request<MaybeBuffered<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<MaybeBuffered<R>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let config = Arc::clone(&self.config);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let (sent, body) = config.prove(Head::of(&parts), body).await?;
            parts.headers = sent.head.headers.clone();
            let response = inner.call(Request::from_parts(parts, body)).await.map_err(Into::into)?;
            match &config.expected {
                None => Ok(response.map(Either::Left)),
                Some(expected) => Ok(expected.verify(&sent, response, config.body_limit).await?.map(Either::Right)),
            }
        })
    }
}

/// A request with its proof.
pub(super) struct Proven {
    pub(super) head: Head,
    /// Of a signature.
    pub(super) nonce: Option<String>,
}

impl Config {
    async fn prove<B>(&self, mut head: Head, body: B) -> Result<(Proven, MaybeBuffered<B>), ProofLayerError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let sign_response = self.expected.is_some();
        if !self.proving.covers_body() {
            let nonce = self.proving.add(&mut head, wimse::Body::Empty, sign_response).await?;
            return Ok((Proven { head, nonce }, Either::Left(body)));
        }
        let failed = |error: BufferError| ProofLayerError::Body { reason: error.to_string() };
        let bytes = buffer_request(body, &head.headers, self.body_limit).await.map_err(failed)?;
        let nonce = self.proving.add(&mut head, message::body(&bytes), sign_response).await?;
        Ok((Proven { head, nonce }, Either::Right(Full::new(bytes))))
    }
}
