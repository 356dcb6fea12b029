//! Which pods have not got the identity, or have a clock that is wrong: from the receipts of their agents and the pods there are.

use countersign_crds::{AgentVersion, Undelivered};
use countersign_index::{IdentityKey, SharedIndex};
use countersign_proto::inspect::v1::Delivery;
use countersign_reasons::Reason;

use crate::inspect::{
    deliveries::{Deliveries, NAMED, PodProblem},
    identity_counts::Totals,
};

/// How many versions of agents are named.
const VERSIONS: usize = 5;

/// Of the pods of `key` with an agent, of which `served` have an open stream and `able` may have one.
pub(super) fn pods(
    totals: &Totals,
    key: &IdentityKey,
    (served, able): (i64, i64),
    index: &SharedIndex,
) -> Vec<Undelivered> {
    let name = |uid: &str| index.read(|index| index.pod(uid)).map(|pod| pod.facts.name);
    let Deliveries { problems, .. } = totals.of(key).deliveries;
    // A pod that has ended since has no name any more.
    let problems = problems.iter().filter_map(|(uid, problem)| Some((name(uid)?, problem)));
    let mut found: Vec<Undelivered> = problems.flat_map(|(pod, problem)| of_pod(pod, *problem)).collect();
    if let Some(connected) = totals.connected.as_ref().filter(|_| served < able) {
        let names = index.read(|index| index.unconnected(key, |uid| connected.contains(uid), NAMED));
        found.extend(
            names
                .into_iter()
                .map(|pod| entry(pod, Reason::AgentNotConnected, "its agent has no stream to the operator".to_owned())),
        );
    }
    found.sort_by(|a, b| (&a.pod, &a.reason).cmp(&(&b.pod, &b.reason)));
    found.truncate(2 * NAMED);
    found
}

fn of_pod(pod: String, problem: PodProblem) -> Vec<Undelivered> {
    let delivery = match problem.delivery {
        Delivery::Held => None,
        Delivery::Nothing => {
            Some((Reason::NothingDelivered, "its agent is connected, and its workload has no X.509-SVID"))
        }
        Delivery::NotOnSocket => {
            Some((Reason::SocketDiffers, "its socket has another X.509-SVID than was issued to it last"))
        }
        Delivery::NotInFiles => Some((Reason::FilesDiffer, "its files have another X.509-SVID than its socket")),
    };
    let delivery = delivery.map(|(reason, message)| entry(pod.clone(), reason, message.to_owned()));
    let clock = (problem.clock_ahead != 0).then(|| {
        let seconds = rounded(problem.clock_ahead.unsigned_abs());
        let side = if problem.clock_ahead < 0 { "behind" } else { "ahead of" };
        let message = format!("the clock of its node is at least {seconds} s {side} the operator's");
        entry(pod, Reason::AgentClockDiffers, message)
    });
    delivery.into_iter().chain(clock).collect()
}

fn entry(pod: String, reason: Reason, message: String) -> Undelivered {
    Undelivered { pod, reason: reason.name().to_owned(), message: reason.with_code(&message) }
}

/// Down to one significant digit: each receipt measures something else, and that is no news.
fn rounded(seconds: u64) -> u64 {
    let unit = 10_u64.pow(seconds.checked_ilog10().unwrap_or(0));
    seconds / unit * unit
}

/// The most frequent versions of agents.
pub(super) fn versions(deliveries: &Deliveries) -> Vec<AgentVersion> {
    let name = |version: &str| if version.is_empty() { "unknown".to_owned() } else { version.to_owned() };
    let all = deliveries.agents.iter().map(|(version, pods)| AgentVersion { version: name(version), pods: *pods });
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| b.pods.cmp(&a.pods).then_with(|| a.version.cmp(&b.version)));
    all.truncate(VERSIONS);
    all
}

#[cfg(test)]
mod tests {
    use super::{IdentityKey, SharedIndex, Totals, pods, rounded, versions};
    use crate::inspect::identity_counts::{Answer, ReplicaReports};
    use countersign_index::PodRecord;
    use countersign_policy as policy;
    use countersign_proto::inspect::v1::{
        AgentCount, Delivery, IdentityReport, PodAddresses, PodProblem, ReportResponse,
    };
    use serde_json::json;

    fn key() -> IdentityKey {
        IdentityKey { namespace: "shop".to_owned(), name: "cart".to_owned() }
    }

    /// Pods of account `cart`, with uids that are their names, each with an agent or without.
    fn index(of: &[(&str, bool)]) -> SharedIndex {
        let object = serde_json::from_value(json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
            "metadata": {"name": "cart", "namespace": "shop", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"trustDomain": "example.org", "selector": {"serviceAccounts": ["cart"]}},
        }));
        let shared = SharedIndex::default();
        shared.update(|index| {
            index.apply_identity(policy::workload_identity(&object.unwrap()));
            for (name, injected) in of {
                let mut pod = PodRecord { injected: *injected, ..PodRecord::default() };
                (pod.facts.namespace, pod.facts.service_account) = ("shop".to_owned(), "cart".to_owned());
                (pod.facts.name, pod.facts.uid) = ((*name).to_owned(), (*name).to_owned());
                index.apply_pod(pod);
            }
        });
        shared
    }

    fn totals(problems: &[(&str, Delivery, i64)], open: &[&str], tells_receipts: bool) -> Totals {
        let problem = |&(uid, delivery, clock_ahead): &(&str, Delivery, i64)| PodProblem {
            uid: uid.to_owned(),
            delivery: delivery.into(),
            clock_ahead,
        };
        let identity = IdentityReport {
            namespace: "shop".to_owned(),
            name: "cart".to_owned(),
            problems: problems.iter().map(problem).collect(),
            ..IdentityReport::default()
        };
        let pod = |uid: &&str| PodAddresses { uid: (*uid).to_owned(), open: true, ..PodAddresses::default() };
        let report = ReportResponse {
            identities: vec![identity],
            pods: open.iter().map(pod).collect(),
            tells_receipts,
            ..ReportResponse::default()
        };
        ReplicaReports::default().enter(vec![Answer { replica: "a".to_owned(), report: Some(report) }])
    }

    #[test]
    fn each_pod_that_lacks_something_is_named_with_the_reason_and_its_code() {
        let index = index(&[("a", true), ("b", true), ("c", true), ("d", false), ("e", true)]);
        let problems = [("b", Delivery::NotInFiles, -61), ("c", Delivery::Held, 5), ("gone", Delivery::Nothing, 0)];
        let found = pods(&totals(&problems, &["b", "c", "e"], true), &key(), (3, 4), &index);
        let found: Vec<_> = found.iter().map(|one| (one.pod.as_str(), one.reason.as_str(), &*one.message)).collect();
        assert_eq!(
            found,
            [
                ("a", "AgentNotConnected", "its agent has no stream to the operator (CS1300)"),
                ("b", "AgentClockDiffers", "the clock of its node is at least 60 s behind the operator's (CS1304)"),
                ("b", "FilesDiffer", "its files have another X.509-SVID than its socket (CS1303)"),
                ("c", "AgentClockDiffers", "the clock of its node is at least 5 s ahead of the operator's (CS1304)"),
            ]
        );
    }

    // While the operator is rolled out, replicas of two builds answer.
    #[test]
    fn nobody_is_named_as_not_connected_unless_every_replica_says_who_is() {
        let index = index(&[("a", true)]);
        assert!(pods(&totals(&[], &[], false), &key(), (0, 1), &index).is_empty());
        assert_eq!(pods(&totals(&[], &[], true), &key(), (0, 1), &index).len(), 1);
        let silent = ReplicaReports::default().enter(vec![Answer { replica: "a".to_owned(), report: None }]);
        assert!(pods(&silent, &key(), (0, 1), &index).is_empty());
    }

    #[test]
    fn the_most_frequent_versions_of_agents_are_named() {
        let agent = |version: &str, pods| AgentCount { version: version.to_owned(), pods };
        let mut report =
            IdentityReport { agents: (1..=6).map(|n| agent(&format!("0.{n}"), n)).collect(), ..Default::default() };
        report.agents.push(agent("", 9));
        (report.namespace, report.name) = ("shop".to_owned(), "cart".to_owned());
        let report = ReportResponse { identities: vec![report], ..ReportResponse::default() };
        let totals = ReplicaReports::default().enter(vec![Answer { replica: "a".to_owned(), report: Some(report) }]);
        let found = versions(&totals.of(&key()).deliveries);
        let found: Vec<_> = found.iter().map(|one| (one.version.as_str(), one.pods)).collect();
        assert_eq!(found, [("unknown", 9), ("0.6", 6), ("0.5", 5), ("0.4", 4), ("0.3", 3)]);
    }

    #[test]
    fn a_clock_is_named_with_one_digit() {
        let (found, expected) = ([0, 5, 9, 61, 99, 125, 7200].map(rounded), [0, 5, 9, 60, 90, 100, 7000]);
        assert_eq!(found, expected);
    }
}
