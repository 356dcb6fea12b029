//! The operator's metrics. Labels come from closed sets: no name of an object, pod or trust domain is ever a label.

use std::{fmt, sync::Arc, time::Duration};

use crate::federation::metrics::FederationMetrics;
use countersign_issuer::metrics::IssuerMetrics;
use countersign_runtime::{
    clock_skew::ClockMetrics, connections::ConnectionMetrics, http::Encode, leader::LeaderMetrics,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// How a reconcile or a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// As wanted.
    Ok,
    /// Not as wanted.
    Error,
}

/// Which controller reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Controller {
    /// Of TrustDomains.
    TrustDomain,
    /// Of WorkloadIdentities.
    WorkloadIdentity,
    /// Of the control plane's own root and ConfigMap.
    ControlPlane,
}

/// What the index counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Object {
    /// Pods.
    Pods,
    /// Namespaces.
    Namespaces,
    /// TrustDomains.
    TrustDomains,
    /// WorkloadIdentities.
    WorkloadIdentities,
    /// Watched sessions.
    Sessions,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: Controller,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabel {
    object: Object,
}

/// Every metric of the operator and the registry that encodes them.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Histogram>,
    index: Family<ObjectLabel, Gauge>,
    /// Objects that could not be decoded.
    pub undecodable: Counter,
    /// The issuer's.
    pub issuer: Arc<IssuerMetrics>,
    /// Of connections to the issuer.
    pub connections: ConnectionMetrics,
    /// Of leadership.
    pub leader: LeaderMetrics,
    /// Of the clock.
    pub clock: ClockMetrics,
    /// Of federation.
    pub federation: FederationMetrics,
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        fn slow() -> Histogram {
            Histogram::new([1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 5.0, 30.0])
        }
        let mut metrics = Self {
            registry: Registry::with_prefix("countersign"),
            reconciles: Family::new_with_constructor(slow),
            index: Family::default(),
            undecodable: Counter::default(),
            issuer: Arc::default(),
            connections: ConnectionMetrics::default(),
            leader: LeaderMetrics::default(),
            clock: ClockMetrics::default(),
            federation: FederationMetrics::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        self.issuer.register(registry);
        self.connections.register(registry, "the issuer");
        self.leader.register(registry);
        self.clock.register(registry);
        self.federation.register(registry);
        registry.register_with_unit("reconcile", "Time a reconcile took", Unit::Seconds, self.reconciles.clone());
        registry.register("index_objects", "Objects in the index", self.index.clone());
        registry.register("undecodable_objects", "Objects that could not be decoded", self.undecodable.clone());
    }

    /// Records a reconcile.
    pub fn reconciled(&self, controller: Controller, outcome: Outcome, took: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { controller, outcome }).observe(took.as_secs_f64());
    }

    /// Sets the size of a part of the index.
    pub fn index_size(&self, object: Object, size: usize) {
        self.index.get_or_create(&ObjectLabel { object }).set(i64::try_from(size).unwrap_or(i64::MAX));
    }

    /// The OpenMetrics text.
    ///
    /// # Errors
    /// When formatting fails.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Writes the text at each scrape.
    #[must_use]
    pub fn encoder(self: &Arc<Self>) -> Encode {
        let metrics = self.clone();
        Arc::new(move || metrics.encode())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Controller, Duration, Metrics, Object, Outcome};
    use countersign_issuer::{
        freshness::View,
        metrics::{Kind, Reason},
    };

    #[test]
    fn the_size_of_the_index_is_told_by_kind() {
        let metrics = Metrics::new();
        metrics.index_size(Object::Pods, 3);
        let text = metrics.encode().expect("encodes");
        assert!(text.contains("countersign_index_objects{object=\"Pods\"} 3"), "{text}");
    }

    // Dashboards and alerts spell them.
    #[test]
    fn the_names_of_metrics_are_those_that_are_documented() {
        let metrics = Metrics::new();
        // What has labels is not there before its first value.
        metrics.reconciled(Controller::TrustDomain, Outcome::Ok, Duration::ZERO);
        metrics.index_size(Object::Pods, 0);
        metrics.issuer.refused(Kind::Session, Reason::Token);
        metrics.issuer.agents(None).set(0);
        metrics.federation.polled("confirmed");
        metrics.issuer.view_age(View::Pods, Duration::ZERO);
        let text = metrics.encode().expect("encodes");
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        names.sort_unstable();
        let documented: Vec<&str> = include_str!("metrics.golden").lines().collect();
        assert_eq!(names, documented, "if this is meant, change operator/src/metrics.golden and docs");
    }
}
