//! The two ports over TLS: what answers requests, and what peers may use. Nothing is ever read of a request's body.

use std::{future::ready, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{
        HeaderValue, Method, Response, StatusCode, Version,
        header::{
            ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::IntoResponse,
};
use countersign_runtime::{
    connections::{ConnectionLimits, ConnectionMetrics, ReadRate},
    http::{HttpLimits, serve_https},
    tls::{server_config_by, web_server_config},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    documents::Document,
    metrics::{Metrics, RequestMetrics},
    publication::Published,
    request::{Answer, Head, Profile, Refusal, Route, answer},
    web_certificates::ServedWebCertificates,
};

/// The limits of each of the two ports. A relying party asks every few minutes on a connection of its own, but anybody may
/// connect: nothing on a connection proves who its peer is, so each of them may be evicted for a newer one, except while its
/// request is answered, which takes no time. Behind a load balancer all peers share an address. The numbers keep what two full ports
/// buffer for peers that do not read within the container's memory.
pub const LIMITS: HttpLimits = HttpLimits {
    connections: ConnectionLimits {
        handshakes: 1,
        handshake_time: Duration::from_secs(5),
        waiting_per_address: 128,
        waiting: 256,
        per_address: 128,
        total: 256,
    },
    idle: Duration::from_secs(30),
    read_rate: ReadRate { bytes_per_second: 16 * 1024, burst: 64 * 1024 },
    streams: 16,
    shutdown: Duration::from_secs(5),
};

const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// What the ports serve.
#[derive(Clone, Debug)]
pub struct Served {
    /// Documents and SVIDs.
    pub published: Arc<Published>,
    /// Counts answers.
    pub requests: RequestMetrics,
}

impl Served {
    /// Of what is published, with the metrics of all.
    #[must_use]
    pub fn new(published: Arc<Published>, metrics: &Metrics) -> Self {
        Self { published, requests: metrics.requests() }
    }

    /// Serves the profile `https_spiffe` until `shutdown`: TLS 1.3 with the SVID of the trust domain that the peer names
    /// (SPIFFE Federation, section 5.2.2).
    ///
    /// # Errors
    /// When the TLS provider lacks TLS 1.3.
    pub async fn serve_spiffe(
        self,
        listener: TcpListener,
        limits: HttpLimits,
        metrics: ConnectionMetrics,
        shutdown: CancellationToken,
    ) -> Result<(), rustls::Error> {
        let tls = server_config_by(Arc::clone(&self.published) as _, PROTOCOLS)?;
        serve_https(listener, tls, self.router(Profile::Spiffe), limits, metrics, shutdown).await;
        Ok(())
    }

    /// Serves the profile `https_web` until `shutdown`: TLS 1.2 and 1.3 with certificates of the web (SPIFFE Federation,
    /// section 5.2.1), and the documents of OIDC and of trust domain discovery.
    ///
    /// # Errors
    /// When the TLS provider lacks both versions.
    pub async fn serve_web(
        self,
        listener: TcpListener,
        certificates: Arc<ServedWebCertificates>,
        limits: HttpLimits,
        metrics: ConnectionMetrics,
        shutdown: CancellationToken,
    ) -> Result<(), rustls::Error> {
        let tls = web_server_config(certificates, PROTOCOLS)?;
        serve_https(listener, tls, self.router(Profile::Web), limits, metrics, shutdown).await;
        Ok(())
    }

    fn router(self, profile: Profile) -> Router {
        Router::new().fallback(move |request: Request| ready(self.respond(profile, &request)))
    }

    fn respond(&self, profile: Profile, request: &Request) -> Response<Body> {
        let publication = self.published.current();
        let hosts: Vec<&[u8]> = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes).collect();
        let if_none_match: Vec<&[u8]> =
            request.headers().get_all(IF_NONE_MATCH).iter().map(HeaderValue::as_bytes).collect();
        let head = Head {
            method: request.method().as_str(),
            authority: request.uri().authority().map(axum::http::uri::Authority::as_str),
            hosts: &hosts,
            path: request.uri().path(),
            if_none_match: &if_none_match,
        };
        let answer = match &publication {
            Some(publication) => answer(&publication.documents, profile, &head),
            None => Answer::Refused(Refusal::NotReady),
        };
        let (route, response) = response(answer, request.method() == Method::HEAD, request.version());
        self.requests.answered(profile, route, response.status());
        response
    }
}

fn response(answer: Answer<'_>, head_only: bool, version: Version) -> (Route, Response<Body>) {
    match answer {
        Answer::Document(route, document) => {
            let body = if head_only { Body::empty() } else { Body::from(document.body.clone()) };
            let mut response = with_headers(StatusCode::OK, body, document);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(document.media_type));
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(document.body.len()));
            (route, response)
        }
        Answer::NotModified(route, document) => {
            (route, with_headers(StatusCode::NOT_MODIFIED, Body::empty(), document))
        }
        Answer::Refused(refusal) => {
            let mut response = (refusal.status(), refusal.text()).into_response();
            let headers = response.headers_mut();
            headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            if refusal == Refusal::Method {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            // A body that is not read must not be taken for the next request.
            if refusal == Refusal::Method && version <= Version::HTTP_11 {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            (Route::Unknown, response)
        }
    }
}

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

fn with_headers(status: StatusCode, body: Body, document: &Document) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    // Both consist of ASCII letters, digits and quotes.
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(ETAG, etag);
    }
    if let Ok(max_age) = HeaderValue::from_str(&format!("max-age={}", document.max_age.as_secs())) {
        headers.insert(CACHE_CONTROL, max_age);
    }
    response
}

#[cfg(test)]
#[path = "servers_tests.rs"]
mod tests;
