//! HTTP: servers within limits, and the port of a component without TLS: `/healthz`, `/readyz` and `/metrics`.

mod connection;
mod server;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use server::{HttpLimits, serve_http, serve_https};

use crate::{
    connections::{ConnectionLimits, ReadRate},
    readiness::Missing,
};

/// Kubelets probe on a new connection each time; scrapers keep theirs. Both are far below these limits.
const LIMITS: HttpLimits = HttpLimits {
    connections: ConnectionLimits {
        handshakes: 1,
        handshake_time: Duration::ZERO,
        waiting_per_address: 32,
        waiting: 256,
        per_address: 32,
        total: 256,
    },
    idle: Duration::from_secs(30),
    read_rate: ReadRate { bytes_per_second: 16 * 1024, burst: 64 * 1024 },
    streams: 16,
    shutdown: Duration::from_secs(5),
};

/// Writes the metrics of a component as OpenMetrics text.
pub type Encode = Arc<dyn Fn() -> Result<String, fmt::Error> + Send + Sync>;

#[derive(Clone)]
struct AppState {
    missing: Missing,
    metrics: Encode,
}

/// Serves the port of a component until `shutdown`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, router: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    serve_http(TcpListener::bind(address).await?, router, LIMITS, shutdown).await;
    Ok(())
}

/// The routes of a component's port.
pub fn router(missing: Missing, metrics: Encode) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(AppState { missing, metrics })
}

async fn ready(State(state): State<AppState>) -> impl IntoResponse {
    let missing = (state.missing)();
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
    use super::{Encode, LIMITS, router, serve_http};
    use crate::readiness::Readiness;
    use axum::body::Body;
    use http::{Request, StatusCode, header::CONTENT_TYPE};
    use http_body_util::BodyExt as _;
    use std::{net::Ipv4Addr, sync::Arc};
    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
        time::Instant,
    };
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    /// Status, content type and text of what is at `path`.
    async fn get(path: &str, readiness: &Readiness) -> (StatusCode, String, String) {
        let metrics: Encode = Arc::new(|| Ok("# TYPE one gauge\n# EOF\n".to_owned()));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router(readiness.probe(), metrics).oneshot(request).await.unwrap();
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
    async fn port() -> std::net::SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router(Readiness::default().probe(), Arc::new(|| Ok(String::new())));
        tokio::spawn(serve_http(listener, router, LIMITS, CancellationToken::new()));
        address
    }

    #[tokio::test]
    async fn one_address_has_few_connections_and_its_newest_ones() {
        let address = port().await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut others = Vec::new();
        for _ in 0..LIMITS.connections.waiting_per_address {
            others.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(first.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_is_asked_is_closed() {
        let mut silent = TcpStream::connect(port().await).await.unwrap();
        let begin = Instant::now();
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(begin.elapsed().as_secs(), LIMITS.idle.as_secs());
    }
}
