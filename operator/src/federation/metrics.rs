//! The metrics of federation. None has the name of a trust domain: there may be very many.

use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What came of polls, and how old what is trusted is.
#[derive(Clone, Debug, Default)]
pub struct FederationMetrics {
    polls: Family<PollLabels, Counter>,
    oldest_confirmation: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PollLabels {
    outcome: &'static str,
}

impl FederationMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("federation_polls", "Polls of bundle endpoints by what came of them", self.polls.clone());
        registry.register(
            "federation_oldest_confirmation_timestamp_seconds",
            "When the bundle of a remote trust domain was confirmed last whose last confirmation is longest ago; 0 without one",
            self.oldest_confirmation.clone(),
        );
    }

    /// A poll ended, with this outcome of a closed list.
    pub fn polled(&self, outcome: &'static str) {
        self.polls.get_or_create(&PollLabels { outcome }).inc();
    }

    /// When the bundle was confirmed that has not been for longest.
    pub fn confirmed(&self, oldest: Option<Timestamp>) {
        self.oldest_confirmation.set(oldest.map_or(0, Timestamp::as_second));
    }
}
