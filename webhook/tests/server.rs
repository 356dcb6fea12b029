//! The HTTP servers: oversized and malformed requests get errors, and readiness reports what is missing.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use common::review;
use countersign_webhook::{
    admission::LONGEST_REVIEW,
    consequences::Consequences,
    control_plane::Current,
    large_reviews::LargeReviews,
    metrics::Metrics,
    server::{self, App},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::Service;

const FAR: &str = "2999-01-01T00:00:00Z";

fn app(settings: bool, published: bool) -> Arc<App> {
    app_until(settings, published.then_some(FAR))
}

fn app_until(settings: bool, until: Option<&str>) -> Arc<App> {
    let current = Current::default();
    if settings {
        current.store(Some(Arc::new(common::settings())));
    }
    Arc::new(App {
        consequences: Consequences::default(),
        options: common::options(),
        settings: current,
        metrics: Metrics::new(),
        serves_until: watch::channel(until.map(|until| until.parse().unwrap())).1,
        large_reviews: LargeReviews::new(),
        draining: AtomicBool::new(false),
    })
}

async fn call(router: &mut Router, method: &str, path: &str, body: Vec<u8>) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
    let response = router.call(request).await.unwrap();
    let status = response.status();
    (status, String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn each_path_knows_who_asked() {
    let mut router = server::admission(app(true, true));
    for (path, expected) in [("pod", json!({ "skipped": "NotAsked" })), ("namespace", json!({ "injected": "sidecar" }))]
    {
        let (status, body) =
            call(&mut router, "POST", &format!("/mutate-pods/by-{path}"), review(&common::pod())).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["response"]["uid"], "u1");
        assert_eq!(body["response"]["auditAnnotations"], expected);
    }
    let (_, body) = call(&mut router, "POST", "/mutate-pods/by-namespace-otherwise", review(&common::pod())).await;
    assert!(body.contains("NamespaceMode"), "{body}");
}

#[tokio::test]
async fn a_huge_review_is_refused_with_a_reason() {
    let app = app(true, true);
    let mut router = server::admission(app.clone());
    let (status, body) = call(&mut router, "POST", "/mutate-pods/by-namespace", vec![b' '; LONGEST_REVIEW + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body.contains("longer than 3145728 bytes"), "{body}");
    assert!(app.metrics.text().contains(r#"reason="TooLarge"} 1"#));
}

#[tokio::test]
async fn what_is_no_review_is_a_bad_request() {
    let mut router = server::admission(app(true, true));
    for path in ["/mutate-pods/by-pod", "/validate"] {
        let (status, body) = call(&mut router, "POST", path, b"{}".to_vec()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body.contains("AdmissionReview"), "{body}");
    }
}

#[tokio::test]
async fn readiness_waits_for_settings_and_certificates() {
    for (settings, published, expected) in [
        (false, false, "ConfigMap"),
        (false, true, "ConfigMap"),
        (true, false, "countersign-webhook-tls"),
        (true, true, "ok"),
    ] {
        let mut router = server::observation(app(settings, published));
        let (status, body) = call(&mut router, "GET", "/readyz", vec![]).await;
        assert_eq!(status == StatusCode::OK, settings && published);
        assert!(body.contains(expected), "{body}");
        assert_eq!(call(&mut router, "GET", "/healthz", vec![]).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn resources_are_judged() {
    let mut router = server::admission(app(false, false));
    let object = json!({ "metadata": { "name": "a" }, "spec": { "trustDomain": "t", "selector": { "serviceAccounts": ["a"] }, "path": "/{pod}" } });
    let request = json!({ "uid": "u", "kind": { "group": "countersign.dev", "version": "v1alpha1", "kind": "WorkloadIdentity" }, "operation": "CREATE", "object": object });
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
    let (_, body) = call(&mut router, "POST", "/validate", review.to_string().into_bytes()).await;
    assert!(body.contains("unknown placeholder"), "{body}");
}

#[tokio::test]
async fn a_replica_whose_certificate_has_expired_or_that_is_about_to_end_is_not_ready_and_still_answers() {
    let expired = app_until(true, Some("2001-01-01T00:00:00Z"));
    let ending = app(true, true);
    ending.draining.store(true, Ordering::Relaxed);
    for (app, expected) in [(expired, "expired"), (ending, "about to end")] {
        let (status, body) = call(&mut server::observation(app.clone()), "GET", "/readyz", vec![]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains(expected), "{body}");
        let path = "/mutate-pods/by-namespace";
        let (status, _) = call(&mut server::admission(app), "POST", path, review(&common::pod())).await;
        assert_eq!(status, StatusCode::OK);
    }
}

/// If the server closes an idle connection, the next call on it may fail.
#[tokio::test]
async fn a_replica_that_is_about_to_end_has_each_answer_end_its_connection() {
    let app = app(true, true);
    let mut router = server::admission(app.clone());
    let mut closes = async || {
        let body = Body::from(review(&common::pod()));
        let request = Request::builder().method("POST").uri("/mutate-pods/by-namespace").body(body).unwrap();
        let response = router.call(request).await.unwrap();
        response.headers().get("connection").is_some_and(|value| value == "close")
    };
    assert!(!closes().await);
    app.draining.store(true, Ordering::Relaxed);
    assert!(closes().await);
}

#[tokio::test(start_paused = true)]
async fn a_review_that_does_not_arrive_is_given_up() {
    let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let request = Request::builder().method("POST").uri("/validate").body(body).unwrap();
    let response = Service::call(&mut server::admission(app(true, true)), request).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
}
