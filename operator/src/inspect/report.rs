//! A replica's report: its open streams, counted by WorkloadIdentity and by their agents' version.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use countersign_core::entitlement::IdentitySpec;
use countersign_proto::inspect::v1;
use jiff::Timestamp;
use tokio::time::Instant;

use countersign_issuer::{
    agent_versions::{SupportPolicy, SupportStatus},
    record::StreamRecord,
    registry::Registry,
};
use countersign_runtime::readiness::Readiness;

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
}

impl Source {
    /// The report at this moment.
    #[must_use]
    pub fn report(&self) -> v1::ReportResponse {
        let mut response = count(&self.registry.snapshot(), &self.support);
        response.pods = pods(&self.registry, Instant::now());
        response.replica.clone_from(&self.replica);
        env!("CARGO_PKG_VERSION").clone_into(&mut response.version);
        response.missing = self.readiness.missing().into_iter().map(str::to_owned).collect();
        response
    }
}

fn pods(registry: &Registry, now: Instant) -> Vec<v1::PodAddresses> {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let pods = registry.addresses(now).into_iter();
    pods.map(|(uid, addresses)| v1::PodAddresses {
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
}

/// Counts streams; those of one pod stand beside each other, and count as one pod.
fn count(records: &[Arc<StreamRecord>], support: &SupportPolicy) -> v1::ReportResponse {
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
            if let Some(issued) = one.issued {
                count.next_expiry = earlier(count.next_expiry, issued.not_after);
                count.oldest_issuance = earlier(count.oldest_issuance, issued.at);
            }
        }
    }
    v1::ReportResponse {
        identities: identities.into_values().map(|(identity, count)| identity_report(identity, &count)).collect(),
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

fn identity_report(identity: &IdentitySpec, count: &Count<'_>) -> v1::IdentityReport {
    let seconds = |at: Option<Timestamp>| at.map_or(0, Timestamp::as_second);
    v1::IdentityReport {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
        pods: count.pods,
        outdated: count.outdated,
        next_expiry: seconds(count.next_expiry),
        oldest_issuance: seconds(count.oldest_issuance),
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, v1};
    use countersign_core::entitlement::IdentitySpec;
    use countersign_index::{IdentityKey, Index};
    use countersign_issuer::{
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
}
