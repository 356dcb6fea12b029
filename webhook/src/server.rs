//! The two servers: admission over TLS, and `/metrics`, `/healthz`, `/readyz` in the clear.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{
        HeaderValue, StatusCode, Version,
        header::{CONNECTION, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use tokio::{sync::watch, time::timeout};

use crate::{
    admission::{self, Answer, LONGEST_REVIEW},
    control_plane::Current,
    inject::{AgentOptions, Asked},
    metrics::Metrics,
};

/// What the servers share.
pub struct App {
    /// The agent as the installation wants it.
    pub options: AgentOptions,
    /// What the operator published.
    pub settings: Current,
    /// Counts.
    pub metrics: Metrics,
    /// When the certificate that is served ends; `None` until there is one.
    pub serves_until: watch::Receiver<Option<Timestamp>>,
    /// Whether this replica is about to end: it still answers, and asks not to be asked.
    pub draining: AtomicBool,
}

/// How long a request's body may take to arrive: API servers give a webhook 5 s for all.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// Admission.
pub fn admission(app: Arc<App>) -> Router {
    Router::new()
        .route("/mutate-pods/by-pod", post(|app: State<Arc<App>>, body: Body| mutate(app, Asked::ByPod, body)))
        .route(
            "/mutate-pods/by-namespace",
            post(|app: State<Arc<App>>, body: Body| mutate(app, Asked::ByNamespace, body)),
        )
        .route(
            "/mutate-pods/by-namespace-otherwise",
            post(|app: State<Arc<App>>, body: Body| mutate(app, Asked::ByNamespaceOtherwise, body)),
        )
        .route("/validate", post(validate))
        .layer(middleware::from_fn_with_state(app.clone(), retire))
        .with_state(app)
}

/// While this replica drains, each answer ends its connection. API servers keep connections of HTTP/1.1 for their next call, and
/// a call that meets the close of one fails: so they are to be closed by the one who calls.
async fn retire(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let keeps_alive = request.version() == Version::HTTP_11;
    let mut response = next.run(request).await;
    if keeps_alive && app.draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Health and metrics.
pub fn observation(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(app)
}

async fn mutate(State(app): State<Arc<App>>, asked: Asked, body: Body) -> Response {
    let settings = app.settings.load();
    answer(&app, "mutate", body, |request| admission::mutate(request, asked, &app.options, settings.as_deref())).await
}

async fn validate(State(app): State<Arc<App>>, body: Body) -> Response {
    answer(&app, "validate", body, admission::check).await
}

async fn answer(
    app: &App,
    endpoint: &'static str,
    body: Body,
    decide: impl FnOnce(&admission::Request) -> Answer,
) -> Response {
    let body = match read(body).await {
        Ok(body) => body,
        Err(refused) => {
            let (reason, response) = *refused;
            app.metrics.answered(endpoint, ("denied", reason), Duration::ZERO);
            return response;
        }
    };
    let begun = Instant::now();
    let request = match admission::read(&body) {
        Ok(request) => request,
        Err(error) => {
            app.metrics.answered(endpoint, ("denied", "Malformed"), begun.elapsed());
            return (StatusCode::BAD_REQUEST, format!("countersign: {error}\n")).into_response();
        }
    };
    let answer = decide(&request);
    let (outcome, reason) = answer.outcome();
    app.metrics.answered(endpoint, (outcome, reason), begun.elapsed());
    tracing::debug!(endpoint, outcome, reason, namespace = request.namespace, name = request.name, "answered");
    ([(CONTENT_TYPE, "application/json")], answer.review(&request.uid).to_string()).into_response()
}

/// The body, or the reason for metrics with an answer.
async fn read(body: Body) -> Result<Bytes, Box<(&'static str, Response)>> {
    let refused = |reason, status: StatusCode, text: String| Box::new((reason, (status, text).into_response()));
    match timeout(BODY_WITHIN, to_bytes(body, LONGEST_REVIEW)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(refused(
            "TooLarge",
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("countersign: the AdmissionReview is longer than {LONGEST_REVIEW} bytes, or ended early\n"),
        )),
        Err(_) => Err(refused(
            "Late",
            StatusCode::REQUEST_TIMEOUT,
            format!("countersign: the AdmissionReview did not arrive within {BODY_WITHIN:?}\n"),
        )),
    }
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    match waiting(&app, Timestamp::now()) {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

/// Why no request is to be sent here.
fn waiting(app: &App, now: Timestamp) -> Option<&'static str> {
    if app.draining.load(Ordering::Relaxed) {
        return Some("not ready: about to end\n");
    }
    if app.settings.load().is_none() {
        return Some("not ready: ConfigMap countersign-control-plane has not been seen; the operator writes it\n");
    }
    match *app.serves_until.borrow() {
        Some(until) if now < until => None,
        Some(_) => Some(
            "not ready: the serving certificate has expired; Deployment countersign-webhook-ca renews it, see its log\n",
        ),
        None => Some(
            "not ready: Secret countersign-webhook-tls has not been seen; Deployment countersign-webhook-ca writes it\n",
        ),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], app.metrics.text()).into_response()
}
