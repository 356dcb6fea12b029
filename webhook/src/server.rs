//! The two servers: admission over TLS, and `/metrics`, `/healthz`, `/readyz` in the clear.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::watch;

use crate::{
    admission::{self, Answer, LONGEST_REVIEW, Request},
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
    /// Whether certificate and `caBundle` are in place.
    pub published: watch::Receiver<bool>,
}

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
        .with_state(app)
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

async fn answer(app: &App, endpoint: &'static str, body: Body, decide: impl FnOnce(&Request) -> Answer) -> Response {
    let body = match read(body).await {
        Ok(body) => body,
        Err(response) => {
            app.metrics.answered(endpoint, ("denied", "TooLarge"), std::time::Duration::ZERO);
            return *response;
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

async fn read(body: Body) -> Result<Bytes, Box<Response>> {
    to_bytes(body, LONGEST_REVIEW).await.map_err(|_| {
        let text = format!("countersign: the AdmissionReview is longer than {LONGEST_REVIEW} bytes, or ended early\n");
        Box::new((StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
    })
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let waiting = match (app.settings.load().is_some(), *app.published.borrow()) {
        (true, true) => return "ok\n".into_response(),
        (false, _) => "not ready: ConfigMap countersign-control-plane has not been seen; the operator writes it\n",
        (_, false) => "not ready: the serving certificate or caBundle is not in place; see the log\n",
    };
    (StatusCode::SERVICE_UNAVAILABLE, waiting).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], app.metrics.text()).into_response()
}
