//! A layer of servers: who sent a request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use countersign_core::wimse::{
    Body as ProofBody,
    signature::{claimed_body, verify_content_digest},
};
use http::{Extensions, HeaderMap, Request, Response, request::Parts};
use http_body::Body;
use http_body_util::{Either, Full};
use jiff::Timestamp;
use parking_lot::Mutex;
use tower::{Layer, Service};

use super::{
    BoxError, DEFAULT_BODY_LIMIT, MaybeBuffered,
    buffer::buffer_request,
    message::{self, Head},
    refused::{self, Refused},
    signed_response::ResponseSigning,
    take_ready,
};
use crate::{
    PeerIdentity,
    proof::{AuthenticatedRequest, Authenticator},
    prover::Prover,
    refusal_log::RefusalLog,
};

/// Authenticates requests before a service sees them: each has a [`Caller`](crate::proof::Caller) among its extensions. Others get
/// the status, challenge and problem details that the specifications prescribe, or, if they are of gRPC, its code; the reason is logged,
/// at most once a second.
///
/// The mTLS peer is the [`PeerIdentity`] among the extensions of a request, or, with axum, its `ConnectInfo<PeerIdentity>`. Servers of
/// axum and tonic on an `MtlsListener` set them; a server of hyper inserts the peer of the connection into each of its requests.
///
/// The layer belongs outside of whatever changes method, path or query, such as `Router::nest` of axum: a signature covers them as they
/// were sent.
#[derive(Clone)]
pub struct AuthenticationLayer(Arc<Config>);

struct Config {
    authenticator: Authenticator,
    body_limit: usize,
    signer: Option<Arc<dyn Prover>>,
    refusals: Mutex<RefusalLog>,
}

/// What [`AuthenticationLayer`] makes of a service.
#[derive(Clone)]
pub struct AuthenticationService<S> {
    inner: S,
    config: Arc<Config>,
}

impl AuthenticationLayer {
    /// Accepts what `authenticator` does, signed bodies of at most 1 MiB, and signs no responses.
    #[must_use]
    pub fn new(authenticator: Authenticator) -> Self {
        let (body_limit, refusals) = (DEFAULT_BODY_LIMIT, Mutex::default());
        Self(Arc::new(Config { authenticator, body_limit, signer: None, refusals }))
    }

    /// The longest body, in bytes, of a signed request, and of a response that is signed: both are kept in memory, that of a request
    /// before its signature is verified. A longer request gets 413, and a longer response is replaced by a refusal. Requests that are not
    /// signed may be of any length.
    #[must_use]
    pub fn body_limit(self, bytes: usize) -> Self {
        self.with(|config| config.body_limit = bytes)
    }

    /// Signs the responses to requests that ask for it. Without this, such a request gets 501 and does not reach the service
    /// (draft-ietf-wimse-http-signature-08, section 3.6).
    #[must_use]
    pub fn sign_responses(self, prover: impl Prover + 'static) -> Self {
        self.with(|config| config.signer = Some(Arc::new(prover)))
    }

    fn with(self, change: impl FnOnce(&mut Config)) -> Self {
        let Config { authenticator, body_limit, signer, .. } = &*self.0;
        let (authenticator, signer) = (authenticator.clone(), signer.clone());
        let mut config = Config { authenticator, body_limit: *body_limit, signer, refusals: Mutex::default() };
        change(&mut config);
        Self(Arc::new(config))
    }
}

impl<S> Layer<S> for AuthenticationLayer {
    type Service = AuthenticationService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthenticationService { inner, config: Arc::clone(&self.0) }
    }
}

impl<S, B, R> Service<Request<B>> for AuthenticationService<S>
where
    S: Service<Request<MaybeBuffered<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<MaybeBuffered<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let config = Arc::clone(&self.config);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let (AuthenticatedRequest { caller, signature }, body) = match config.authenticate(&parts, body).await {
                Ok(authenticated) => authenticated,
                Err(refused) => return Ok(config.refuse(&refused, &parts.headers).map(Either::Right)),
            };
            let asked = signature.filter(|signature| signature.sign_response);
            let signing = match (asked, &config.signer) {
                (None, _) => None,
                (Some(_), None) => {
                    return Ok(config.refuse(&Refused::SignedResponse, &parts.headers).map(Either::Right));
                }
                (Some(signature), Some(prover)) => Some(ResponseSigning {
                    prover: Arc::clone(prover),
                    limit: config.body_limit,
                    request: Head::of(&parts),
                    request_nonce: signature.nonce,
                }),
            };
            parts.extensions.insert(caller);
            let response = inner.call(Request::from_parts(parts, body)).await?;
            Ok(match signing {
                None => response.map(Either::Left),
                Some(signing) => signing.sign(response).await,
            })
        })
    }
}

impl Config {
    async fn authenticate<B>(&self, parts: &Parts, body: B) -> Result<(AuthenticatedRequest, MaybeBuffered<B>), Refused>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let Parts { method, uri, headers, extensions, .. } = parts;
        let fields = message::fields(headers);
        let peer = peer(extensions).map(PeerIdentity::id);
        if !self.authenticator.needs_body(&fields) {
            let request = message::request(method, uri, headers, &fields, ProofBody::Empty);
            let authenticated = self.authenticator.authenticate(&request, peer, Timestamp::now()).await?;
            return Ok((authenticated, Either::Left(body)));
        }
        if message::is_grpc(headers) {
            return Err(Refused::SignedGrpc);
        }
        // The body of a request whose signature does not hold for what it claims its body to be is not read.
        let request = message::request(method, uri, headers, &fields, claimed_body(&fields));
        let verified = self.authenticator.verify_unremembered(&request, peer, Timestamp::now())?;
        let bytes = buffer_request(body, headers, self.body_limit).await?;
        verify_content_digest(&fields, message::body(&bytes))
            .map_err(|error| self.authenticator.refusal(error.into()))?;
        let authenticated = self.authenticator.remember(verified, Timestamp::now()).await?;
        Ok((authenticated, Either::Right(Full::new(bytes))))
    }

    /// `headers` are those of the request.
    fn refuse(&self, refused: &Refused, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let answer = refused.answer();
        if let Some(left_out) = self.refusals.lock().next(Instant::now()) {
            tracing::info!(error = %refused, status = answer.status, left_out, "a request was refused");
        }
        if message::is_grpc(headers) { refused::grpc_response(answer) } else { refused::response(answer) }
    }
}

fn peer(extensions: &Extensions) -> Option<&PeerIdentity> {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(peer)) = extensions.get() {
        return Some(peer);
    }
    extensions.get()
}
