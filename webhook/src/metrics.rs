//! Prometheus metrics. Label values are closed lists and never contain names chosen by users.

use std::time::Duration;

use countersign_runtime::connections::ConnectionMetrics;
use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// All metrics of the webhook.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    admissions: Family<Admission, Counter>,
    seconds: Family<Endpoint, Histogram, fn() -> Histogram>,
    certificate: CertificateMetrics,
    connections: ConnectionMetrics,
}

/// Metrics of the serving certificate.
#[derive(Clone, Debug, Default)]
pub struct CertificateMetrics {
    expires: Gauge,
}

impl CertificateMetrics {
    /// Sets when the serving certificate expires.
    pub fn expires(&self, at: Timestamp) {
        self.expires.set(at.as_second());
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Admission {
    endpoint: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    endpoint: &'static str,
}

impl Metrics {
    /// With every count at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("countersign_webhook");
        let admissions = Family::default();
        let seconds = Family::new_with_constructor(buckets as fn() -> Histogram);
        registry.register("admissions", "Admission requests by endpoint, outcome and reason", admissions.clone());
        registry.register("admission_seconds", "Time to answer an admission request, in seconds", seconds.clone());
        let certificate = CertificateMetrics::default();
        registry.register(
            "serving_certificate_expiry_seconds",
            "When this replica's serving certificate ends, in seconds since 1970",
            certificate.expires.clone(),
        );
        let connections = ConnectionMetrics::default();
        connections.register(&mut registry, "the admission port");
        Self { registry, admissions, seconds, certificate, connections }
    }

    /// The metrics of the serving certificate.
    #[must_use]
    pub fn certificate(&self) -> CertificateMetrics {
        self.certificate.clone()
    }

    /// The metrics of connections to the admission port.
    #[must_use]
    pub fn connections(&self) -> ConnectionMetrics {
        self.connections.clone()
    }

    /// Counts an answer.
    pub fn answered(&self, endpoint: &'static str, (outcome, reason): (&'static str, &'static str), took: Duration) {
        self.admissions.get_or_create(&Admission { endpoint, outcome, reason }).inc();
        self.seconds.get_or_create(&Endpoint { endpoint }).observe(took.as_secs_f64());
    }

    /// OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String fails only if a metric's own encoding does.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn buckets() -> Histogram {
    Histogram::new([0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_reason() {
        let metrics = Metrics::new();
        metrics.answered("mutate", ("skipped", "Windows"), Duration::from_micros(200));
        let text = metrics.text();
        assert!(
            text.contains(
                r#"countersign_webhook_admissions_total{endpoint="mutate",outcome="skipped",reason="Windows"} 1"#
            ),
            "{text}"
        );
        assert!(text.contains("countersign_webhook_admission_seconds_bucket"), "{text}");
    }

    #[test]
    fn the_expiry_of_the_certificate_is_reported() {
        let metrics = Metrics::new();
        metrics.certificate().expires("2026-01-01T00:00:00Z".parse().unwrap());
        let text = metrics.text();
        assert!(text.contains("countersign_webhook_serving_certificate_expiry_seconds 1767225600"), "{text}");
    }
}
