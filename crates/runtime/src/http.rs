//! The HTTP port of a component: `/healthz`, `/readyz` and `/metrics`, in the clear.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;

/// Writes the metrics of a component as OpenMetrics text.
pub type Encode = Arc<dyn Fn() -> Result<String, fmt::Error> + Send + Sync>;

#[derive(Clone)]
struct AppState {
    readiness: Readiness,
    metrics: Encode,
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the address cannot be bound or accepting fails.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    metrics: Encode,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router(readiness, metrics)).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

fn router(readiness: Readiness, metrics: Encode) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(AppState { readiness, metrics })
}

async fn ready(State(state): State<AppState>) -> impl IntoResponse {
    let missing = state.readiness.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", missing.join("\n")))
}

async fn metrics_text(State(state): State<AppState>) -> impl IntoResponse {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match (state.metrics)() {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPENMETRICS)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Encode, router};
    use crate::readiness::Readiness;
    use axum::body::Body;
    use http::{Request, StatusCode, header::CONTENT_TYPE};
    use http_body_util::BodyExt as _;
    use std::sync::Arc;
    use tower::ServiceExt as _;

    /// Status, content type and text of what is at `path`.
    async fn get(path: &str, readiness: &Readiness) -> (StatusCode, String, String) {
        let metrics: Encode = Arc::new(|| Ok("# TYPE one gauge\n# EOF\n".to_owned()));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router(readiness.clone(), metrics).oneshot(request).await.unwrap();
        let content_type = answer.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let status = answer.status();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, content_type.unwrap_or_default(), String::from_utf8(text.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn who_lives_is_healthy_and_ready_only_once_nothing_is_missing() {
        let readiness = Readiness::default();
        let checks = ["one is missing", "two is missing"].map(|missing| (missing, readiness.check(missing)));
        for (missing, check) in &checks {
            let (status, _, text) = get("/readyz", &readiness).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(text.lines().any(|line| line == *missing), "{text}");
            let (status, _, text) = get("/healthz", &readiness).await;
            assert_eq!((status, text.as_str()), (StatusCode::OK, "ok\n"), "not ready is no reason to be restarted");
            check.pass();
        }
        let (status, _, text) = get("/readyz", &readiness).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "ok\n"));
        checks[0].1.fail();
        assert_eq!(get("/readyz", &readiness).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn metrics_are_told_as_openmetrics_and_nothing_else_is_served() {
        let (status, content_type, text) = get("/metrics", &Readiness::default()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"), "{content_type}");
        assert!(text.contains("# TYPE one gauge") && text.ends_with("# EOF\n"), "{text}");
        for path in ["/", "/debug/pprof", "/metrics/x"] {
            assert_eq!(get(path, &Readiness::default()).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }
}
