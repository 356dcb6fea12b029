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
    body::Body,
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
use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    admission::{self, Answer, LONGEST_REVIEW},
    body::{self, Read, ReadError},
    control_plane::Current,
    inject::{AgentOptions, Trigger},
    large_reviews::LargeReviews,
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
    /// The budget of large reviews, of both kinds of admission.
    pub large_reviews: LargeReviews,
    /// When the certificate that is served ends; `None` until there is one.
    pub serves_until: watch::Receiver<Option<Timestamp>>,
    /// Whether this replica is about to end: it still answers, and asks not to be asked.
    pub draining: AtomicBool,
}

/// Admission.
pub fn admission(app: Arc<App>) -> Router {
    Router::new()
        .route("/mutate-pods/by-pod", post(|app: State<Arc<App>>, body: Body| mutate(app, Trigger::PodLabel, body)))
        .route(
            "/mutate-pods/by-namespace",
            post(|app: State<Arc<App>>, body: Body| mutate(app, Trigger::NamespaceLabel, body)),
        )
        .route(
            "/mutate-pods/by-namespace-otherwise",
            post(|app: State<Arc<App>>, body: Body| mutate(app, Trigger::UnsupportedNamespaceLabel, body)),
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

async fn mutate(State(app): State<Arc<App>>, trigger: Trigger, body: Body) -> Response {
    let decide = move |app: &App, request: &admission::Request<'_>| {
        admission::mutate(request, trigger, &app.options, app.settings.load().as_deref())
    };
    answer(&app, "mutate", body, decide).await
}

async fn validate(State(app): State<Arc<App>>, body: Body) -> Response {
    answer(&app, "validate", body, |_, request| admission::check(request)).await
}

async fn answer(
    app: &Arc<App>,
    endpoint: &'static str,
    body: Body,
    decide: impl FnOnce(&App, &admission::Request<'_>) -> Answer + Send + 'static,
) -> Response {
    match body::read(body, &app.large_reviews).await {
        Ok(Read::Ordinary(bytes)) => evaluate(app, endpoint, &bytes, decide),
        Ok(Read::Large(bytes, slot)) => {
            let (app, turn) = (app.clone(), app.large_reviews.evaluate().await);
            // It goes on when the caller has gone, so what it holds goes with it.
            let evaluated = spawn_blocking(move || {
                let response = evaluate(&app, endpoint, &bytes, decide);
                drop((bytes, slot, turn));
                response
            });
            evaluated.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
        }
        Err(unread) => refuse(app, endpoint, unread),
    }
}

fn evaluate(
    app: &App,
    endpoint: &'static str,
    body: &[u8],
    decide: impl FnOnce(&App, &admission::Request<'_>) -> Answer,
) -> Response {
    let begun = Instant::now();
    let request = match admission::read(body) {
        Ok(request) => request,
        Err(error) => {
            app.metrics.answered(endpoint, ("denied", "Malformed"), begun.elapsed());
            return (StatusCode::BAD_REQUEST, format!("countersign: {error}\n")).into_response();
        }
    };
    let answer = decide(app, &request);
    let (outcome, reason) = answer.outcome();
    app.metrics.answered(endpoint, (outcome, reason), begun.elapsed());
    tracing::debug!(endpoint, outcome, reason, namespace = &*request.namespace, name = &*request.name, "answered");
    review(&answer, &request.uid)
}

/// Answers for a review that was not read: with a review where its beginning named its uid, so that whoever made the object
/// is shown the reason.
fn refuse(app: &App, endpoint: &'static str, unread: ReadError) -> Response {
    let (status, reason, head, message) = match unread {
        ReadError::TooLarge(head) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "TooLarge",
            Some(head),
            format!("the AdmissionReview is longer than {LONGEST_REVIEW} bytes: make the object smaller"),
        ),
        ReadError::Busy(head, busy) => (StatusCode::TOO_MANY_REQUESTS, "Busy", Some(head), busy.to_string()),
        ReadError::Late => {
            (StatusCode::REQUEST_TIMEOUT, "Late", None, "the AdmissionReview did not arrive in time".to_owned())
        }
        ReadError::Broken => (StatusCode::BAD_REQUEST, "Broken", None, "the AdmissionReview ended early".to_owned()),
    };
    app.metrics.answered(endpoint, ("denied", reason), Duration::ZERO);
    match head.and_then(|head| head.uid) {
        Some(uid) => review(&Answer::Deny { code: status.as_u16(), reason, messages: vec![message] }, &uid),
        None => (status, format!("countersign: {message}\n")).into_response(),
    }
}

fn review(answer: &Answer, uid: &str) -> Response {
    ([(CONTENT_TYPE, "application/json")], answer.review(uid).to_string()).into_response()
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
