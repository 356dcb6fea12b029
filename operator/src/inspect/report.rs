//! A replica's report: its open streams, counted by WorkloadIdentity and by their agents' version.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use countersign_core::{entitlement::IdentitySpec, id::TrustDomain};
use countersign_index::SharedIndex;
use countersign_proto::inspect::v1;
use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

use countersign_issuer::{
    agent_versions::{SupportPolicy, SupportStatus},
    published::Published,
    record::StreamRecord,
    registry::Registry,
};
use countersign_runtime::{clock::Clock, readiness::Readiness};

use super::deliveries::DeliveryCount;

/// What a report is made from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The replica's name.
    pub replica: String,
    /// Its open streams.
    pub registry: Registry,
    /// What it has.
    pub readiness: Readiness,
    /// Which of their agents are outdated.
    pub support: SupportPolicy,
    /// Which pods are alive.
    pub index: SharedIndex,
    /// What this replica publishes.
    pub published: watch::Receiver<Arc<Published>>,
    /// The time.
    pub clock: Clock,
}

/// A stream that has been open for less than this may still be about to acknowledge its first State.
const ABOUT_TO_ACKNOWLEDGE: Duration = Duration::from_secs(10);

impl Source {
    /// The report at this moment.
    #[must_use]
    pub fn report(&self) -> v1::ReportResponse {
        let mut response = count(&self.registry.snapshot(), &self.support, self.clock.now());
        response.pods = pods(&self.registry, Instant::now());
        response.replica.clone_from(&self.replica);
        env!("CARGO_PKG_VERSION").clone_into(&mut response.version);
        response.domains = self.domains();
        response.tells_domains = true;
        response.tells_receipts = true;
        response.missing = self.readiness.missing().into_iter().map(str::to_owned).collect();
        response
    }

    /// What agents acknowledged, by trust domain.
    fn domains(&self) -> Vec<v1::DomainReport> {
        let (published, now) = (self.published.borrow().clone(), self.clock.now());
        let mut domains = Domains::default();
        domains.0.extend(published.bundles.keys().map(|name| (name.clone(), Vec::new())));
        self.registry.snapshot().iter().for_each(|record| domains.add(record, 0));
        let is_alive = |uid: &str| self.index.read(|index| index.alive(uid, now));
        for record in self.registry.departed(now, is_alive) {
            // At least 1: 0 is an open stream.
            domains.add(&record, record.in_use_until().map_or(1, |until| until.as_second().max(1)));
        }
        let report = |(trust_domain, sessions): (TrustDomain, Vec<_>)| v1::DomainReport {
            published_sequence: published.bundles.get(&trust_domain).map_or(0, |bundle| bundle.sequence),
            trust_domain: trust_domain.to_string(),
            sessions,
        };
        domains.0.into_iter().map(report).collect()
    }
}

#[derive(Debug, Default)]
struct Domains(BTreeMap<TrustDomain, Vec<v1::SessionReport>>);

impl Domains {
    fn add(&mut self, record: &StreamRecord, departed_until: i64) {
        let able = record.acks.is_able();
        for sent in record.acks.sent() {
            let is_new = departed_until == 0 && record.opened.elapsed() < ABOUT_TO_ACKNOWLEDGE;
            if able && is_new && sent.in_effect.is_none() {
                continue;
            }
            self.0.entry(sent.trust_domain).or_default().push(v1::SessionReport {
                pod_uid: record.pod_uid.clone(),
                session: record.session.clone(),
                sequence: sent.in_effect.unwrap_or(0),
                unable: !able,
                departed_until,
                claimed_sequence: sent.claimed.unwrap_or(0),
            });
        }
    }
}

fn pods(registry: &Registry, now: Instant) -> Vec<v1::PodAddresses> {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let open = registry.snapshot();
    let open: HashSet<&str> = open.iter().map(|record| record.pod_uid.as_str()).collect();
    let pods = registry.addresses(now).into_iter();
    pods.map(|(uid, addresses)| v1::PodAddresses {
        open: open.contains(&*uid),
        uid: uid.to_string(),
        addresses: addresses.into_iter().map(bytes).collect(),
    })
    .collect()
}

#[derive(Debug, Default)]
struct Count<'a> {
    /// The pod counted last: the sessions of one pod follow each other.
    last: Option<&'a str>,
    pods: u32,
    outdated: u32,
    next_expiry: Option<Timestamp>,
    oldest_issuance: Option<Timestamp>,
    deliveries: DeliveryCount<'a>,
}

/// Counts streams; those of one pod stand beside each other, and count as one pod.
fn count(records: &[Arc<StreamRecord>], support: &SupportPolicy, now: Timestamp) -> v1::ReportResponse {
    let served: Vec<_> = records.iter().map(|record| (&**record, record.served())).collect();
    let mut identities: HashMap<&str, (&IdentitySpec, Count<'_>)> = HashMap::new();
    let mut agents: BTreeMap<&str, Count<'_>> = BTreeMap::new();
    for (record, served) in &served {
        let pod = Some(record.pod_uid.as_str());
        let agent = agents.entry(record.agent.version.as_str()).or_default();
        if agent.last != pod {
            (agent.last, agent.pods) = (pod, agent.pods + 1);
        }
        let outdated = matches!(support.judge(&record.agent), SupportStatus::Outdated(_));
        for one in served {
            let (_, count) = identities.entry(&one.identity.uid).or_insert_with(|| (&one.identity, Count::default()));
            if count.last != pod {
                (count.last, count.pods) = (pod, count.pods + 1);
                count.outdated += u32::from(outdated);
            }
            let delivery = record.receipts.delivery(served.len(), one.since, one.issued.as_ref(), now);
            count.deliveries.add(record, delivery);
            if let Some(issued) = one.issued {
                count.next_expiry = earlier(count.next_expiry, issued.not_after);
                count.oldest_issuance = earlier(count.oldest_issuance, issued.at);
            }
        }
    }
    v1::ReportResponse {
        identities: identities.into_values().map(|(identity, count)| identity_report(identity, count)).collect(),
        agents: agents
            .into_iter()
            .map(|(version, count)| v1::AgentCount { version: version.to_owned(), pods: count.pods })
            .collect(),
        ..v1::ReportResponse::default()
    }
}

fn earlier(known: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(known.map_or(other, |known| known.min(other)))
}

fn identity_report(identity: &IdentitySpec, count: Count<'_>) -> v1::IdentityReport {
    let seconds = |at: Option<Timestamp>| at.map_or(0, Timestamp::as_second);
    let mut report = v1::IdentityReport {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
        pods: count.pods,
        outdated: count.outdated,
        next_expiry: seconds(count.next_expiry),
        oldest_issuance: seconds(count.oldest_issuance),
        ..v1::IdentityReport::default()
    };
    count.deliveries.enter(&mut report);
    report
}

#[cfg(test)]
mod tests {
    use super::{Clock, SharedIndex, Source, TrustDomain, v1, watch};
    use countersign_core::entitlement::IdentitySpec;
    use countersign_index::{IdentityKey, Index, PodRecord};
    use countersign_issuer::{
        acknowledgements::{Acknowledgement, BundleSequence},
        agent_versions::{SupportPolicy, Version},
        issuance::{CredentialKind, IssuanceRecord},
        record::AgentInfo,
        registry::{Registration, Registry, StreamLimits},
    };
    use countersign_policy as policy;
    use countersign_runtime::readiness::Readiness;
    use jiff::Timestamp;
    use serde_json::json;
    use std::sync::Arc;

    fn identity(name: &str) -> Arc<IdentitySpec> {
        let object = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}},
        }))
        .unwrap();
        let mut index = Index::default();
        index.apply_identity(policy::workload_identity(&object));
        let key = IdentityKey { namespace: "shop".to_owned(), name: name.to_owned() };
        index.identity(&key).unwrap().outcome.unwrap().identity().clone()
    }

    fn stream(
        registry: &Registry,
        pod: &str,
        session: &str,
        version: &str,
        told: &[&Arc<IdentitySpec>],
    ) -> Registration {
        let held = registry.register(pod, session, None, AgentInfo::new(version, &[]), tokio::time::Instant::now());
        let hold = held.unwrap().registration;
        hold.record().set_served(told.iter().copied());
        hold
    }

    fn issue(hold: &Registration, identity: &IdentitySpec, at: i64, not_after: i64) {
        let time = |second| Timestamp::from_second(second).unwrap();
        hold.record().issued(&IssuanceRecord {
            kind: CredentialKind::X509,
            serial: Vec::new(),
            id: &"spiffe://example.org/x".parse().unwrap(),
            authority: Vec::new(),
            pod_uid: "p",
            node: "n",
            fingerprint: Some([0; 32]),
            issued_at: time(at),
            expires_at: time(not_after),
            rule: identity,
        });
    }

    #[test]
    fn each_pod_counts_once_for_each_identity_and_its_newest_certificates_count() {
        let readiness = Readiness::default();
        let _missing = readiness.check("pods are not listed yet");
        let source = Source {
            replica: "operator-a".to_owned(),
            registry: Registry::new(StreamLimits::default()),
            readiness,
            support: SupportPolicy { own: Version { major: 0, minor: 5 }, required: &[] },
            index: SharedIndex::default(),
            published: watch::channel(Arc::default()).1,
            clock: Clock::new(|| Timestamp::UNIX_EPOCH),
        };
        let (cart, other) = (identity("cart"), identity("other"));
        let registry = &source.registry;
        let first = stream(registry, "p1", "proxy", "0.1.0", &[&cart]);
        issue(&first, &cart, 100, 150);
        issue(&first, &cart, 120, 170);
        let second = stream(registry, "p1", "app", "0.1.0", &[&cart, &other]);
        issue(&second, &cart, 110, 160);
        let _third = stream(registry, "p2", "", "0.0.0", &[&cart]);
        let _none = stream(registry, "p3", "", "0.1.0", &[]);

        let mut report = source.report();
        report.identities.sort_by(|a, b| a.name.cmp(&b.name));
        let counts: Vec<_> = report
            .identities
            .iter()
            .map(|one| (one.name.as_str(), one.pods, one.outdated, one.next_expiry, one.oldest_issuance))
            .collect();
        assert_eq!(counts, [("cart", 2, 1, 160, 110), ("other", 1, 0, 0, 0)]);
        let agents: Vec<_> = report.agents.iter().map(|one| (one.version.as_str(), one.pods)).collect();
        assert_eq!(agents, [("0.0.0", 1), ("0.1.0", 2)]);
        assert_eq!((report.replica.as_str(), report.missing.is_empty()), ("operator-a", false));

        drop((first, second));
        let report: v1::ReportResponse = source.report();
        assert_eq!(
            report.identities.iter().map(|one| one.pods).collect::<Vec<_>>(),
            [1],
            "streams that ended are gone"
        );
    }

    #[test]
    fn what_a_stream_is_no_longer_told_of_is_no_longer_served() {
        let registry = Registry::new(StreamLimits::default());
        let (cart, other) = (identity("cart"), identity("other"));
        let hold = stream(&registry, "p1", "", "0.1.0", &[&cart, &other]);
        issue(&hold, &cart, 100, 150);
        hold.record().set_served([&cart].into_iter());
        let served = hold.record().served();
        assert_eq!(served.len(), 1);
        assert!(served[0].issued.is_some(), "what was issued for an identity that stays is kept");
    }

    // What the leader adds up: open streams and those that have ended, by trust domain.
    #[tokio::test(start_paused = true)]
    async fn sessions_are_reported_with_what_is_in_effect_at_their_agents() {
        let registry = Registry::new(StreamLimits::default());
        let index = SharedIndex::default();
        let mut pod = PodRecord::default();
        pod.facts.uid = "p2".to_owned();
        index.update(|index| index.apply_pod(pod));
        let source = Source {
            replica: "operator-a".to_owned(),
            registry: registry.clone(),
            readiness: Readiness::default(),
            support: SupportPolicy { own: Version { major: 0, minor: 5 }, required: &[] },
            index,
            published: watch::channel(Arc::default()).1,
            clock: Clock::new(|| Timestamp::UNIX_EPOCH),
        };
        let trust_domain: TrustDomain = "example.org".parse().unwrap();
        let hold = |pod: &str, capabilities: &[String]| {
            let agent = AgentInfo::new("0.1.0", capabilities);
            let held = registry.register(pod, "", None, agent, tokio::time::Instant::now()).unwrap().registration;
            let sent = BundleSequence { trust_domain: trust_domain.clone(), sequence: 7 };
            held.record().acks.set_sent([sent].into());
            held
        };
        let able = ["ack".to_owned()];
        let (_open, unable, gone) = (hold("p1", &able), hold("p3", &[]), hold("p2", &able));
        let of = |sequence| vec![BundleSequence { trust_domain: trust_domain.clone(), sequence }];
        let ack = Acknowledgement { generation: 1, at: Timestamp::UNIX_EPOCH, in_effect: of(6), ahead: of(9) };
        gone.record().acks.set_acknowledged(ack);
        gone.record().set_in_use_until(Timestamp::from_second(60).unwrap());
        drop(gone);
        let sessions = || {
            let mut domains = source.report().domains;
            assert_eq!((domains.len(), domains[0].trust_domain.as_str()), (1, "example.org"));
            let mut sessions = std::mem::take(&mut domains[0].sessions);
            sessions.sort_by(|a, b| a.pod_uid.cmp(&b.pod_uid));
            let told = |one: &v1::SessionReport| {
                (one.pod_uid.clone(), (one.sequence, one.claimed_sequence), one.unable, one.departed_until)
            };
            sessions.iter().map(told).collect::<Vec<_>>()
        };
        let (left, old) = (("p2".to_owned(), (6, 9), false, 60), ("p3".to_owned(), (0, 0), true, 0));
        assert_eq!(sessions(), [left.clone(), old.clone()], "the first is about to acknowledge");
        tokio::time::advance(super::ABOUT_TO_ACKNOWLEDGE).await;
        assert_eq!(sessions(), [("p1".to_owned(), (0, 0), false, 0), left, old]);
        drop(unable);
        assert!(source.report().tells_domains);
    }
}
