//! The issuer's metrics. Labels come from closed sets: no name of an object, pod or trust domain is ever a label.

mod per_thread_histogram;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, NoLabelSet},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use self::per_thread_histogram::PerThreadHistogram;
use crate::{freshness::View, issuance::CredentialKind};

/// What was asked of the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Kind {
    /// An X509-SVID.
    X509,
    /// A JWT-SVID.
    Jwt,
    /// A WIT-SVID.
    Wit,
    /// A session stream.
    Session,
}

/// What is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Credential {
    /// An X509-SVID.
    X509,
    /// A JWT-SVID.
    Jwt,
    /// A WIT-SVID.
    Wit,
}

impl From<CredentialKind> for Credential {
    fn from(kind: CredentialKind) -> Self {
        match kind {
            CredentialKind::X509 => Self::X509,
            CredentialKind::Jwt => Self::Jwt,
            CredentialKind::Wit => Self::Wit,
        }
    }
}

/// Why something was refused: a closed set, one for each class of cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Reason {
    /// The service account token did not verify.
    Token,
    /// The pod does not exist or has ended.
    PodGone,
    /// The token belongs to another pod than the stream.
    OtherPod,
    /// The session names no container of the pod.
    UnknownSession,
    /// The first message did not come in time or was not Hello.
    NoHello,
    /// The certificate signing request was refused.
    Csr,
    /// The pod holds no such identity.
    NoIdentity,
    /// An audience outside the identity's.
    Audience,
    /// The trust domain's authority cannot sign now.
    Authority,
    /// What this replica knows of the cluster is too old.
    StaleView,
    /// A cap was reached or a needed part is missing for now.
    Overload,
    /// The peer broke the protocol.
    Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuedLabel {
    kind: Credential,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    kind: Kind,
    reason: Reason,
}

/// Major and minor version of agents, or `other`: as many as [`MAX_VERSIONS`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentLabels {
    version: String,
}

/// Versions of agents that are told apart. What an agent says of itself must not make metrics without end.
const MAX_VERSIONS: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ViewLabel {
    view: View,
}

/// Every metric of the issuer.
#[derive(Debug, Default)]
pub struct IssuerMetrics {
    issued: Issued,
    refused: Family<RefusedLabels, Counter>,
    agents: Family<AgentLabels, Gauge>,
    agent_versions: Mutex<BTreeSet<String>>,
    /// Open sessions of agents that are outdated.
    pub agents_outdated: Gauge,
    /// Open sessions.
    pub sessions: Gauge,
    /// Streams ended because a newer one of the same session came.
    pub superseded: Counter,
    /// States pushed to sessions.
    pub states_pushed: Counter,
    /// States that agents acknowledged.
    pub acknowledgements: Counter,
    /// Live reads of pods the index did not know.
    pub live_reads: Counter,
    /// Fetches of the cluster's token keys.
    pub token_key_fetches: Counter,
    /// Events that were dropped by the rate limit.
    pub events_dropped: Counter,
    view_ages: Family<ViewLabel, Gauge<f64, AtomicU64>>,
}

impl IssuerMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.issued.clone()));
        registry.register("refused", "Requests refused", self.refused.clone());
        registry.register("sessions", "Open sessions", self.sessions.clone());
        registry.register("agents", "Open sessions by their agents' version", self.agents.clone());
        registry.register("agents_outdated", "Open sessions of outdated agents", self.agents_outdated.clone());
        registry.register("sessions_displaced", "Streams ended by a newer one", self.superseded.clone());
        registry.register("states_pushed", "States pushed to sessions", self.states_pushed.clone());
        registry.register("acknowledgements", "States that agents acknowledged", self.acknowledgements.clone());
        registry.register("live_pod_reads", "Pods read live after an index miss", self.live_reads.clone());
        registry.register("token_key_fetches", "Fetches of the cluster's token keys", self.token_key_fetches.clone());
        registry.register("events_dropped", "Events dropped by the rate limit", self.events_dropped.clone());
        registry.register_with_unit(
            "view_age",
            "Time since a view of the cluster was last confirmed",
            Unit::Seconds,
            self.view_ages.clone(),
        );
    }

    /// Counts an issued credential and the time from its request's arrival. Threads that issue share nothing here.
    pub fn issued(&self, credential: Credential, took: Duration) {
        self.issued.of(credential).observe(took);
    }

    /// Counts a refusal.
    pub fn refused(&self, kind: Kind, reason: Reason) {
        self.refused.get_or_create(&RefusedLabels { kind, reason }).inc();
    }

    /// Open sessions of agents of a version (`major.minor`, or `other`). The first [`MAX_VERSIONS`] are told apart.
    pub fn agents(&self, version: Option<String>) -> Gauge {
        let mut known = self.agent_versions.lock();
        let version = version.filter(|version| known.contains(version) || known.len() < MAX_VERSIONS);
        if let Some(version) = &version {
            known.insert(version.clone());
        }
        let version = version.unwrap_or_else(|| "other".to_owned());
        self.agents.get_or_create(&AgentLabels { version }).clone()
    }

    /// Sets the age of a view of the cluster.
    pub fn view_age(&self, view: View, age: Duration) {
        self.view_ages.get_or_create(&ViewLabel { view }).set(age.as_secs_f64());
    }
}

/// What was issued and how long that took, by kind.
#[derive(Clone, Debug, Default)]
struct Issued(Arc<[PerThreadHistogram; 3]>);

impl Issued {
    fn of(&self, credential: Credential) -> &PerThreadHistogram {
        let [x509, jwt, wit] = &*self.0;
        match credential {
            Credential::X509 => x509,
            Credential::Jwt => jwt,
            Credential::Wit => wit,
        }
    }
}

impl Collector for Issued {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let summed = [Credential::X509, Credential::Jwt, Credential::Wit]
            .map(|kind| (IssuedLabel { kind }, self.of(kind).sum()));
        let mut issued = encoder.encode_descriptor("issued", "Credentials issued.", None, MetricType::Counter)?;
        for (label, histogram) in &summed {
            issued.encode_family(label)?.encode_counter::<NoLabelSet, _, f64>(&histogram.count(), None)?;
        }
        let (name, help) = ("issue", "Time from a request's arrival to its answer.");
        let mut took = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (label, histogram) in &summed {
            histogram.encode_histogram(&mut took.encode_family(label)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Credential, IssuerMetrics, Kind, Reason};
    use prometheus_client::{encoding::text::encode, registry::Registry};
    use std::{
        fmt,
        sync::{Arc, mpsc},
        thread,
        time::Duration,
    };

    fn registry(metrics: &IssuerMetrics) -> Registry {
        let mut registry = Registry::with_prefix("countersign");
        metrics.register(&mut registry);
        registry
    }

    fn text(metrics: &IssuerMetrics) -> String {
        let mut text = String::new();
        encode(&mut text, &registry(metrics)).expect("encodes");
        text
    }

    #[test]
    fn the_text_names_what_was_counted() {
        let metrics = IssuerMetrics::default();
        metrics.issued(Credential::X509, Duration::from_micros(70));
        metrics.issued(Credential::X509, Duration::from_millis(3));
        metrics.refused(Kind::Jwt, Reason::Audience);
        let text = text(&metrics);
        for line in [
            "countersign_issued_total{kind=\"X509\"} 2",
            "countersign_issued_total{kind=\"Jwt\"} 0",
            "# TYPE countersign_issue_seconds histogram",
            "countersign_issue_seconds_count{kind=\"X509\"} 2",
            "countersign_issue_seconds_sum{kind=\"X509\"} 0.00307",
            "countersign_issue_seconds_bucket{le=\"0.0001\",kind=\"X509\"} 1",
            "countersign_issue_seconds_bucket{le=\"+Inf\",kind=\"X509\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("countersign_refused_total{kind=\"Jwt\",reason=\"Audience\"} 1"), "{text}");
    }

    /// Where the text of a scrape goes; it stops in the middle of what was issued until it is told to go on.
    struct Stopping {
        text: String,
        reached: mpsc::Sender<()>,
        go_on: mpsc::Receiver<()>,
        in_time: bool,
    }

    impl fmt::Write for Stopping {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let before = self.text.contains("countersign_issue_seconds_bucket");
            self.text.push_str(text);
            if !before && self.text.contains("countersign_issue_seconds_bucket") {
                self.reached.send(()).map_err(|_| fmt::Error)?;
                self.in_time = self.go_on.recv_timeout(Duration::from_secs(10)).is_ok();
            }
            Ok(())
        }
    }

    #[test]
    fn a_scrape_holds_up_nobody_who_issues() {
        let metrics = Arc::new(IssuerMetrics::default());
        metrics.issued(Credential::X509, Duration::from_micros(70));
        let ((reached, is_reached), (done, go_on)) = (mpsc::channel(), mpsc::channel());
        let scraped = metrics.clone();
        let scrape = thread::spawn(move || {
            let mut text = Stopping { text: String::new(), reached, go_on, in_time: false };
            encode(&mut text, &registry(&scraped)).expect("encodes");
            text.in_time
        });
        is_reached.recv().expect("it scrapes");
        metrics.issued(Credential::X509, Duration::from_micros(70));
        done.send(()).expect("the scrape waits");
        assert!(scrape.join().expect("no panic"), "an issue waited for the scrape");
    }

    #[test]
    fn agents_are_counted_by_version_of_which_there_are_not_without_end() {
        let metrics = IssuerMetrics::default();
        metrics.agents(Some("0.1".to_owned())).inc();
        for minor in 0..100 {
            metrics.agents(Some(format!("9.{minor}"))).inc();
        }
        metrics.agents(None).inc();
        let text = text(&metrics);
        assert!(text.contains("countersign_agents{version=\"0.1\"} 1"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("countersign_agents{")).count(), 17);
        assert!(text.contains("countersign_agents{version=\"other\"} 86"), "{text}");
    }
}
