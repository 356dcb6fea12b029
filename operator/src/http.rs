//! `/metrics`, `/healthz` and `/readyz`. Ready means that this replica can issue: its caches are complete, it knows the
//! cluster's token keys and the control plane's root, its issuer listens, its clock agrees with the API server's, and what it
//! knows is young enough to issue from.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What must be there before a replica is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Every pod was listed once.
    Pods,
    /// Every namespace was listed once.
    Namespaces,
    /// Every TrustDomain was listed once.
    TrustDomains,
    /// Every WorkloadIdentity was listed once.
    WorkloadIdentities,
    /// Every authority journal was listed once.
    Journals,
    /// The keys which sign service account tokens are known.
    TokenKeys,
    /// The control plane's root is loaded and the serving certificate is signed by it.
    ControlPlaneRoot,
    /// The issuer accepts connections.
    Issuer,
    /// The clock agrees with the API server's.
    Clock,
    /// What is known of the cluster is young enough to issue from.
    FreshViews,
}

impl Part {
    const ALL: [Self; 10] = [
        Self::Pods,
        Self::Namespaces,
        Self::TrustDomains,
        Self::WorkloadIdentities,
        Self::Journals,
        Self::TokenKeys,
        Self::ControlPlaneRoot,
        Self::Issuer,
        Self::Clock,
        Self::FreshViews,
    ];

    fn bit(self) -> u16 {
        1 << (self as u16)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods are not listed yet",
            Self::Namespaces => "namespaces are not listed yet",
            Self::TrustDomains => "TrustDomains are not listed yet",
            Self::WorkloadIdentities => "WorkloadIdentities are not listed yet",
            Self::Journals => "authority journals are not listed yet",
            Self::TokenKeys => "the cluster's token keys (/openid/v1/jwks) are not known yet",
            Self::ControlPlaneRoot => "the control plane's root is not loaded yet",
            Self::Issuer => "the issuer does not listen yet",
            Self::Clock => "the clock is not known to agree with the API server's, see the log",
            Self::FreshViews => "a view of the cluster is too old to issue from, see countersign_view_age_seconds",
        }
    }
}

/// Which parts are there; shared by all who bring one.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU16>);

impl Readiness {
    /// Marks a part as there.
    pub fn set(&self, part: Part) {
        self.0.fetch_or(part.bit(), Ordering::AcqRel);
    }

    /// Marks a part as missing again, such as the listener on shutdown.
    pub fn unset(&self, part: Part) {
        self.0.fetch_and(!part.bit(), Ordering::AcqRel);
    }

    /// Whether a part is there.
    #[must_use]
    pub fn has(&self, part: Part) -> bool {
        self.0.load(Ordering::Acquire) & part.bit() != 0
    }

    /// Whether the index is complete: until then "no identity" would be a guess.
    #[must_use]
    pub fn index_complete(&self) -> bool {
        [Part::Pods, Part::Namespaces, Part::TrustDomains, Part::WorkloadIdentities].iter().all(|part| self.has(*part))
    }

    /// Resolves once everything was listed that the controllers decide from: one that led before would write what is not so.
    pub async fn caches_complete(self) {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        while !(self.index_complete() && self.has(Part::Journals)) {
            look.tick().await;
        }
    }

    /// What is missing, in words; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        Part::ALL.iter().filter(|part| !self.has(**part)).map(|part| part.name()).collect()
    }
}

#[derive(Clone)]
struct Site {
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the address cannot be bound or accepting fails.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router(readiness, metrics)).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

fn router(readiness: Readiness, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Site { readiness, metrics })
}

async fn ready(State(site): State<Site>) -> impl IntoResponse {
    let missing = site.readiness.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", missing.join("\n")))
}

async fn metrics_text(State(site): State<Site>) -> impl IntoResponse {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match site.metrics.encode() {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPENMETRICS)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, Readiness, router};
    use crate::metrics::Metrics;
    use axum::body::Body;
    use http::{Request, StatusCode, header::CONTENT_TYPE};
    use http_body_util::BodyExt as _;
    use std::sync::Arc;
    use tower::ServiceExt as _;

    /// Status, content type and text of what is at `path`.
    async fn get(path: &str, readiness: &Readiness) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router(readiness.clone(), Arc::new(Metrics::new())).oneshot(request).await.unwrap();
        let content_type = answer.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let status = answer.status();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, content_type.unwrap_or_default(), String::from_utf8(text.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn who_lives_is_healthy_and_ready_only_once_nothing_is_missing() {
        let readiness = Readiness::default();
        for part in Part::ALL {
            let (status, _, text) = get("/readyz", &readiness).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(text.lines().any(|line| line == part.name()), "{text}");
            let (status, _, text) = get("/healthz", &readiness).await;
            assert_eq!((status, text.as_str()), (StatusCode::OK, "ok\n"), "not ready is no reason to be restarted");
            readiness.set(part);
        }
        let (status, _, text) = get("/readyz", &readiness).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "ok\n"));
        readiness.unset(Part::Clock);
        assert_eq!(get("/readyz", &readiness).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn metrics_are_told_as_openmetrics_and_nothing_else_is_served() {
        let (status, content_type, text) = get("/metrics", &Readiness::default()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"), "{content_type}");
        assert!(text.contains("# TYPE countersign_agents_outdated gauge") && text.ends_with("# EOF\n"), "{text}");
        for path in ["/", "/debug/pprof", "/metrics/x"] {
            assert_eq!(get(path, &Readiness::default()).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn every_part_is_needed_and_named_while_it_is_missing() {
        let readiness = Readiness::default();
        for (done, part) in Part::ALL.iter().enumerate() {
            let missing = readiness.missing();
            assert_eq!(missing.len(), Part::ALL.len() - done);
            assert!(missing.contains(&part.name()));
            readiness.set(*part);
        }
        assert!(readiness.missing().is_empty());
        readiness.unset(Part::Issuer);
        assert_eq!(readiness.missing(), [Part::Issuer.name()]);
    }

    #[test]
    fn the_index_is_complete_once_all_that_it_is_made_of_was_listed() {
        let readiness = Readiness::default();
        for part in [Part::Pods, Part::Namespaces, Part::TrustDomains] {
            readiness.set(part);
            assert!(!readiness.index_complete());
        }
        readiness.set(Part::WorkloadIdentities);
        assert!(readiness.index_complete());
    }
}
