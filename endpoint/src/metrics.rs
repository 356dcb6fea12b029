//! Prometheus metrics. Label values are closed lists and never contain names chosen by users.

use axum::http::StatusCode;
use countersign_runtime::connections::ConnectionMetrics;
use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{
    publication::Publication,
    request::{Profile, Route},
};

/// All metrics of the endpoint; clones share them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: RequestMetrics,
    set: SetMetrics,
    web_certificate_expiry: Gauge,
    spiffe_connections: ConnectionMetrics,
    web_connections: ConnectionMetrics,
}

/// Metrics of requests.
#[derive(Clone, Debug, Default)]
pub struct RequestMetrics(Family<Request, Counter>);

/// Metrics of the sets of credentials that are published.
#[derive(Clone, Debug, Default)]
pub struct SetMetrics {
    trust_domains: Gauge,
    without_document: Gauge,
    contradictory: Gauge,
    expires: Gauge,
    published: Gauge,
    unreadable: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    profile: &'static str,
    route: &'static str,
    status: &'static str,
}

impl RequestMetrics {
    /// Counts an answer.
    pub fn answered(&self, profile: Profile, route: Route, status: StatusCode) {
        let profile = match profile {
            Profile::Spiffe => "https_spiffe",
            Profile::Web => "https_web",
        };
        let route = match route {
            Route::Bundle => "bundle",
            Route::Configuration => "openid_configuration",
            Route::Keys => "keys",
            Route::TrustDomainMetadata => "trust_domain_metadata",
            Route::TrustBundle => "trust_bundle",
            Route::Unknown => "none",
        };
        let status = match status.as_u16() {
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.0.get_or_create(&Request { profile, route, status }).inc();
    }
}

impl SetMetrics {
    /// A set was published at `now`.
    pub fn published(&self, publication: &Publication, now: Timestamp) {
        self.trust_domains.set(count(publication.documents.len()));
        self.without_document.set(count(publication.without_document.len()));
        self.contradictory.set(count(publication.documents.contradictory().len()));
        self.expires.set(publication.expires.as_second());
        self.published.set(now.as_second());
    }

    /// A set could not be published.
    pub fn unreadable(&self) {
        self.unreadable.inc();
    }
}

impl Metrics {
    /// With every count at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("countersign_endpoint");
        let (requests, set, web_certificate_expiry) =
            (RequestMetrics::default(), SetMetrics::default(), Gauge::default());
        registry.register("requests", "Requests by profile, kind of document and class of status", requests.0.clone());
        registry.register("trust_domains", "Trust domains whose bundle is published", set.trust_domains.clone());
        registry.register(
            "trust_domains_without_document",
            "Trust domains of the set whose bundle document is not in it",
            set.without_document.clone(),
        );
        registry.register(
            "trust_domains_with_contradictory_issuer",
            "Trust domains whose JWT issuer is not served because another one has it too",
            set.contradictory.clone(),
        );
        registry.register(
            "svid_expiry_seconds",
            "When the first of the published SVIDs ends, in seconds since 1970",
            set.expires.clone(),
        );
        registry.register(
            "published_seconds",
            "When a set was last published, in seconds since 1970",
            set.published.clone(),
        );
        registry.register("sets_unreadable", "Sets of credentials that could not be published", set.unreadable.clone());
        registry.register(
            "web_certificate_expiry_seconds",
            "When the first of the web certificates ends, in seconds since 1970; 0 without any",
            web_certificate_expiry.clone(),
        );
        let (spiffe_connections, web_connections) = (ConnectionMetrics::default(), ConnectionMetrics::default());
        spiffe_connections.register(registry.sub_registry_with_prefix("spiffe"), "the port of https_spiffe");
        web_connections.register(registry.sub_registry_with_prefix("web"), "the port of https_web");
        Self { registry, requests, set, web_certificate_expiry, spiffe_connections, web_connections }
    }

    /// The metrics of requests.
    #[must_use]
    pub fn requests(&self) -> RequestMetrics {
        self.requests.clone()
    }

    /// The metrics of sets.
    #[must_use]
    pub fn set(&self) -> SetMetrics {
        self.set.clone()
    }

    /// When the first of the web certificates ends.
    #[must_use]
    pub fn web_certificate_expiry(&self) -> Gauge {
        self.web_certificate_expiry.clone()
    }

    /// The metrics of connections to a port.
    #[must_use]
    pub fn connections(&self, profile: Profile) -> ConnectionMetrics {
        match profile {
            Profile::Spiffe => self.spiffe_connections.clone(),
            Profile::Web => self.web_connections.clone(),
        }
    }

    /// OpenMetrics text.
    ///
    /// # Errors
    /// When a metric's own encoding fails.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Dashboards and alerts spell them.
    #[test]
    fn the_names_of_metrics_are_those_that_are_documented() {
        let metrics = Metrics::new();
        // What has labels is not there before its first value.
        metrics.requests().answered(Profile::Web, Route::Keys, StatusCode::NOT_MODIFIED);
        let text = metrics.text().unwrap();
        let mut names: Vec<String> = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            names.push(if kind == "counter" { format!("{name}_total") } else { name.to_owned() });
        }
        let reference = include_str!("../../docs/reference.md");
        let words = reference.split('`').filter(|word| word.starts_with("countersign_endpoint_"));
        let mut documented: Vec<String> = words.map(str::to_owned).collect();
        names.sort_unstable();
        documented.sort_unstable();
        assert_eq!(names, documented, "if this is meant, change docs/reference.md");
    }

    #[test]
    fn answers_are_counted_by_profile_route_and_class_of_status() {
        let metrics = Metrics::new();
        metrics.requests().answered(Profile::Spiffe, Route::Bundle, StatusCode::OK);
        metrics.requests().answered(Profile::Web, Route::Unknown, StatusCode::NOT_FOUND);
        let text = metrics.text().unwrap();
        for line in [
            r#"countersign_endpoint_requests_total{profile="https_spiffe",route="bundle",status="2xx"} 1"#,
            r#"countersign_endpoint_requests_total{profile="https_web",route="none",status="4xx"} 1"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
