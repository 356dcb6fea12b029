//! Which pods have not got the identity, or have a clock that is wrong: from the receipts of their agents and the pods there are.

use std::collections::BTreeSet;

use countersign_crds::{AgentVersion, Undelivered, WorkloadIdentityStatus};
use countersign_index::{IdentityKey, SharedIndex};
use countersign_proto::inspect::v1::Delivery;
use countersign_reasons::Reason;

use crate::inspect::{
    deliveries::{Deliveries, NAMED, PodProblem},
    identity_counts::Totals,
};

/// How many versions of agents are named.
const VERSIONS: usize = 5;

/// What is known of the deliveries of an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    /// `pods.held`.
    pub(super) held: Option<i64>,
    /// `agents`.
    pub(super) agents: Vec<AgentVersion>,
    /// `undelivered`.
    pub(super) undelivered: Vec<Undelivered>,
}

impl Delivered {
    /// As it stands in a status of now.
    pub(super) fn before(old: &WorkloadIdentityStatus, matched: i64) -> Self {
        Self {
            held: old.pods.and_then(|pods| pods.held).map(|held| held.min(matched)),
            agents: old.agents.clone(),
            undelivered: old.undelivered.clone(),
        }
    }

    /// Of `able` pods with an agent; `None` unless every replica has said what is needed for it.
    pub(super) fn now(totals: &Totals, key: &IdentityKey, able: i64, index: &SharedIndex) -> Option<Self> {
        let (connected, lost) = (totals.connected.as_ref()?, totals.unconnected.as_ref()?);
        let deliveries = &totals.of(key).deliveries;
        let name = |uid: &str| index.read(|index| index.pod(uid)).map(|pod| pod.facts.name);
        // A pod that has ended since has no name any more.
        let problems = deliveries.problems.iter().filter_map(|(uid, problem)| Some((name(uid)?, problem)));
        let mut undelivered: Vec<Undelivered> = problems.flat_map(|(pod, problem)| of_pod(pod, *problem)).collect();
        let clock = Reason::AgentClockDiffers.name();
        let lacking: BTreeSet<&str> =
            undelivered.iter().filter(|one| one.reason != clock).map(|one| one.pod.as_str()).collect();
        let with_agent = |such: &dyn Fn(&str) -> bool| index.read(|index| index.pods_with_agent(key, such));
        let away = with_agent(&|uid| !connected.contains(uid)).len() + lacking.len();
        // A pod with sessions at two replicas is counted twice, and one that has no agent of ours is counted, too.
        let most = able - i64::try_from(away).unwrap_or(i64::MAX);
        let held = Some(deliveries.held.min(most).max(0));
        let lost = with_agent(&|uid| lost.contains_key(uid) && !connected.contains(uid));
        undelivered.extend(
            lost.into_iter()
                .take(NAMED)
                .map(|pod| entry(pod, Reason::AgentNotConnected, "its agent has no stream to the operator".to_owned())),
        );
        // Should they be too many, clocks are left out first.
        undelivered.sort_by(|a, b| (a.reason == clock, &a.pod, &a.reason).cmp(&(b.reason == clock, &b.pod, &b.reason)));
        undelivered.truncate(2 * NAMED);
        undelivered.sort_by(|a, b| (&a.pod, &a.reason).cmp(&(&b.pod, &b.reason)));
        Some(Self { held, agents: versions(deliveries), undelivered })
    }
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
fn versions(deliveries: &Deliveries) -> Vec<AgentVersion> {
    let name = |version: &str| if version.is_empty() { "unknown".to_owned() } else { version.to_owned() };
    let all = deliveries.agents.iter().map(|(version, pods)| AgentVersion { version: name(version), pods: *pods });
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| b.pods.cmp(&a.pods).then_with(|| a.version.cmp(&b.version)));
    all.truncate(VERSIONS);
    all
}

#[cfg(test)]
mod tests {
    use super::{Delivered, IdentityKey, SharedIndex, Totals, rounded, versions};
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

    /// One replica that has so many pods that hold it, these problems, and these pods with a stream; `lost` had none of late.
    fn totals(held: u32, problems: &[(&str, Delivery, i64)], open: &[&str], lost: &[&str]) -> Totals {
        let problem = |&(uid, delivery, clock_ahead): &(&str, Delivery, i64)| PodProblem {
            uid: uid.to_owned(),
            delivery: delivery.into(),
            clock_ahead,
        };
        let identity = IdentityReport {
            namespace: "shop".to_owned(),
            name: "cart".to_owned(),
            held,
            problems: problems.iter().map(problem).collect(),
            ..IdentityReport::default()
        };
        let pod = |uid: &&str| PodAddresses { uid: (*uid).to_owned(), open: true, ..PodAddresses::default() };
        let report = ReportResponse {
            identities: vec![identity],
            pods: open.iter().map(pod).collect(),
            tells_receipts: true,
            ..ReportResponse::default()
        };
        let mut totals =
            ReplicaReports::default().enter(vec![Answer { replica: "a".to_owned(), report: Some(report) }]);
        totals.unconnected = Some(lost.iter().map(|&uid| (uid.to_owned(), "shop".to_owned())).collect());
        totals
    }

    #[test]
    fn each_pod_that_lacks_something_is_named_with_the_reason_and_its_code() {
        let index = index(&[("a", true), ("b", true), ("c", true), ("d", false), ("e", true)]);
        let problems = [("b", Delivery::NotInFiles, -61), ("c", Delivery::Held, 5), ("gone", Delivery::Nothing, 0)];
        let found = Delivered::now(&totals(2, &problems, &["b", "c", "e"], &["a"]), &key(), 4, &index).unwrap();
        assert_eq!(found.held, Some(2));
        let found: Vec<_> =
            found.undelivered.iter().map(|one| (one.pod.as_str(), one.reason.as_str(), &*one.message)).collect();
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

    // With a stream to each replica a pod is counted twice, which must not hide that another has none.
    #[test]
    fn a_pod_that_is_counted_twice_does_not_stand_for_another() {
        let index = index(&[("p", true), ("q", true)]);
        let found = Delivered::now(&totals(2, &[], &["p"], &["q"]), &key(), 2, &index).unwrap();
        assert_eq!((found.held, found.undelivered.len()), (Some(1), 1));
        let differs = [("p", Delivery::NotInFiles, 0)];
        let found = Delivered::now(&totals(2, &differs, &["p", "q"], &[]), &key(), 2, &index).unwrap();
        assert_eq!((found.held, found.undelivered.len()), (Some(1), 1));
    }

    #[test]
    fn a_pod_that_is_new_is_neither_counted_nor_named() {
        let index = index(&[("old", true), ("new", true)]);
        let found = Delivered::now(&totals(1, &[], &["old"], &[]), &key(), 2, &index).unwrap();
        assert_eq!((found.held, found.undelivered.len()), (Some(1), 0));
        // It has connected since the round before.
        let found = Delivered::now(&totals(2, &[], &["old", "new"], &["new"]), &key(), 2, &index).unwrap();
        assert_eq!((found.held, found.undelivered.len()), (Some(2), 0));
    }

    // While the operator is rolled out, replicas of two builds answer; then what was known stays.
    #[test]
    fn nothing_is_known_unless_every_replica_says_who_is_connected() {
        let index = index(&[("a", true)]);
        let mut unknown = totals(0, &[], &[], &["a"]);
        unknown.connected = None;
        assert_eq!(Delivered::now(&unknown, &key(), 1, &index), None);
        let silent = ReplicaReports::default().enter(vec![Answer { replica: "a".to_owned(), report: None }]);
        assert_eq!(Delivered::now(&silent, &key(), 1, &index), None);
    }

    #[test]
    fn of_too_many_problems_those_of_clocks_are_left_out_first() {
        let names: Vec<String> = (10..30).map(|n| format!("p{n}")).collect();
        let index = index(&names.iter().map(|name| (name.as_str(), true)).collect::<Vec<_>>());
        let (differing, lost) = names.split_at(10);
        let problems: Vec<_> = differing.iter().map(|name| (name.as_str(), Delivery::NotInFiles, 60)).collect();
        let open: Vec<_> = differing.iter().map(String::as_str).collect();
        let lost: Vec<_> = lost.iter().map(String::as_str).collect();
        let found = Delivered::now(&totals(0, &problems, &open, &lost), &key(), 20, &index).unwrap();
        assert_eq!(found.undelivered.len(), 20);
        assert!(found.undelivered.iter().all(|one| one.reason != "AgentClockDiffers"), "{found:?}");
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
