//! What the two HTTP servers answer: admission over TLS, and `/metrics`, `/healthz`, `/readyz` without TLS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderValue, StatusCode, Version,
        header::{CONNECTION, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use countersign_reasons::Reason;
use countersign_runtime::{connections::Peer, http};
use jiff::Timestamp;
use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    admission::{self, Answer, LONGEST_REVIEW},
    body::{self, Read, ReadError},
    consequences::Consequences,
    control_plane::Current,
    inject::{AgentOptions, Trigger},
    large_reviews::LargeReviews,
    metrics::Metrics,
};

/// State shared by both servers.
pub struct App {
    /// The installation's settings for the agent container.
    pub options: AgentOptions,
    /// The settings published by the operator.
    pub settings: Current,
    /// What resources mean beside others.
    pub consequences: Consequences,
    /// The metrics.
    pub metrics: Metrics,
    /// The budget of large reviews, for both kinds of admission.
    pub large_reviews: LargeReviews,
    /// When the served certificate expires; `None` until there is one.
    pub serves_until: watch::Receiver<Option<Timestamp>>,
    /// Whether this replica is shutting down: it still answers, but is not ready.
    pub draining: AtomicBool,
}

/// The admission server's routes.
pub fn admission(app: Arc<App>) -> Router {
    Router::new()
        .route("/mutate-pods/by-pod", mutate(Trigger::PodLabel))
        .route("/mutate-pods/by-namespace", mutate(Trigger::NamespaceLabel))
        .route("/mutate-pods/by-namespace-otherwise", mutate(Trigger::UnsupportedNamespaceLabel))
        .route("/validate", post(validate))
        .layer(middleware::from_fn_with_state(app.clone(), close_while_draining))
        .with_state(app)
}

/// While this replica drains, each response asks the API server to close its connection. API servers reuse HTTP/1.1
/// connections, and a call on a connection that the server closes at the same time fails.
async fn close_while_draining(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let keeps_alive = request.version() == Version::HTTP_11;
    let mut response = next.run(request).await;
    if keeps_alive && app.draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The routes of health and metrics.
pub fn observation(app: Arc<App>) -> Router {
    let observed = app.clone();
    let missing = move || not_ready_reason(&observed, Timestamp::now()).into_iter().collect();
    http::router(Arc::new(missing), Arc::new(move || Ok(app.metrics.text())))
}

/// The connection of a request; absent where the routes are called without one.
type From = Option<Extension<Peer>>;

fn mutate(trigger: Trigger) -> MethodRouter<Arc<App>> {
    post(async move |State(app): State<Arc<App>>, from: From, body: Body| {
        let decide = move |app: &App, request: &admission::Request<'_>| {
            admission::mutate(request, trigger, &app.options, app.settings.load().as_deref())
        };
        answer(&app, "mutate", from, body, decide).await
    })
}

async fn validate(State(app): State<Arc<App>>, from: From, body: Body) -> Response {
    let decide = |app: &App, request: &admission::Request<'_>| {
        admission::check_beside(request, |resource| app.consequences.of(resource))
    };
    answer(&app, "validate", from, body, decide).await
}

async fn answer(
    app: &Arc<App>,
    endpoint: &'static str,
    from: From,
    body: Body,
    decide: impl FnOnce(&App, &admission::Request<'_>) -> Answer + Send + 'static,
) -> Response {
    let peer = from.map(|Extension(peer)| peer);
    let body = body::read(body, &app.large_reviews, peer.as_ref()).await;
    // The API server has sent everything and waits.
    let _guard = peer.as_ref().map(Peer::guard_from_eviction);
    match body {
        Ok(Read::Ordinary(bytes)) => evaluate(app, endpoint, &bytes, decide),
        Ok(Read::Large(bytes, slot)) => {
            let (app, permit) = (app.clone(), app.large_reviews.evaluate().await);
            // The evaluation continues if the caller disconnects, so it owns the slot and the permit.
            let evaluated = spawn_blocking(move || {
                let response = evaluate(&app, endpoint, &bytes, decide);
                drop((bytes, slot, permit));
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
            app.metrics.answered(endpoint, ("denied", Reason::MalformedObject.name()), begun.elapsed());
            return (StatusCode::BAD_REQUEST, format!("countersign: {error}\n")).into_response();
        }
    };
    let answer = decide(app, &request);
    let (outcome, reason) = answer.outcome();
    app.metrics.answered(endpoint, (outcome, reason), begun.elapsed());
    tracing::debug!(endpoint, outcome, reason, namespace = &*request.namespace, name = &*request.name, "answered");
    review(&answer, &request.uid)
}

/// Answers a review that was not read. If its beginning contains the uid, the answer is a review, so that the user who created
/// the object sees the reason.
fn refuse(app: &App, endpoint: &'static str, unread: ReadError) -> Response {
    let (status, reason, head, message) = match unread {
        ReadError::TooLarge(head) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            Reason::TooLarge,
            Some(head),
            format!("the AdmissionReview is longer than {LONGEST_REVIEW} bytes: make the object smaller"),
        ),
        ReadError::Busy(head, busy) => (StatusCode::TOO_MANY_REQUESTS, Reason::Busy, Some(head), busy.to_string()),
        ReadError::Late => {
            (StatusCode::REQUEST_TIMEOUT, Reason::Late, None, "the AdmissionReview did not arrive in time".to_owned())
        }
        ReadError::Broken => {
            (StatusCode::BAD_REQUEST, Reason::Broken, None, "the AdmissionReview ended early".to_owned())
        }
    };
    app.metrics.answered(endpoint, ("denied", reason.name()), Duration::ZERO);
    match head.and_then(|head| head.uid) {
        Some(uid) => review(&Answer::Deny { code: status.as_u16(), reason, messages: vec![message] }, &uid),
        None => (status, format!("countersign: {message}\n")).into_response(),
    }
}

fn review(answer: &Answer, uid: &str) -> Response {
    ([(CONTENT_TYPE, "application/json")], answer.review(uid).to_string()).into_response()
}

/// Why this replica is not ready, if it is not.
fn not_ready_reason(app: &App, now: Timestamp) -> Option<&'static str> {
    if app.draining.load(Ordering::Relaxed) {
        return Some("not ready: about to end");
    }
    if app.settings.load().is_none() {
        return Some("not ready: ConfigMap countersign-control-plane has not been seen; the operator writes it");
    }
    match *app.serves_until.borrow() {
        Some(until) if now < until => None,
        Some(_) => Some(
            "not ready: the serving certificate has expired; Deployment countersign-webhook-ca renews it, see its log",
        ),
        None => Some(
            "not ready: Secret countersign-webhook-tls has not been seen; Deployment countersign-webhook-ca writes it",
        ),
    }
}
