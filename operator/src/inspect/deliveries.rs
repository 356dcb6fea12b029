//! How identities have arrived at pods, by the receipts of their agents: counted at each replica, and added up by the leader.

use std::collections::BTreeMap;

use countersign_issuer::{agent_versions::Version, receipts::Delivery, record::StreamRecord};
use countersign_proto::inspect::v1::{self, AgentCount, IdentityReport};

/// How many pods are named for each identity.
pub const NAMED: usize = 10;

/// What is wrong with a pod's delivery, or its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodProblem {
    /// How the identity has arrived.
    pub delivery: v1::Delivery,
    /// Seconds by which the agent's clock is ahead; negative: behind; 0: it may be right.
    pub clock_ahead: i64,
}

impl PodProblem {
    /// Of two replicas at which the pod has sessions.
    fn worse(self, other: Self) -> Self {
        let delivery = match (self.delivery, other.delivery) {
            (v1::Delivery::Held, other) => other,
            (known, v1::Delivery::Held) => known,
            // The lower one is the worse one.
            (known, other) if i32::from(other) < i32::from(known) => other,
            (known, _) => known,
        };
        Self { delivery, clock_ahead: if self.clock_ahead == 0 { other.clock_ahead } else { self.clock_ahead } }
    }
}

/// What is known of an identity's deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Pods that have it on their sockets and in their files.
    pub held: i64,
    /// What is wrong, by the uids of pods: at most [`NAMED`], the first.
    pub problems: BTreeMap<String, PodProblem>,
    /// Pods by the versions of their agents, such as `0.1`; empty: one that cannot be read.
    pub agents: BTreeMap<String, i64>,
}

/// Counts the sessions of one identity at one replica; those of one pod follow each other.
#[derive(Debug, Default)]
pub(super) struct DeliveryCount<'a> {
    pod: Option<Pod<'a>>,
    held: u32,
    problems: BTreeMap<&'a str, PodProblem>,
    agents: BTreeMap<String, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Pod<'a> {
    uid: &'a str,
    worst: Delivery,
    clock_ahead: i64,
}

impl<'a> DeliveryCount<'a> {
    pub(super) fn add(&mut self, record: &'a StreamRecord, delivery: Delivery) {
        let (uid, clock_ahead) = (record.pod_uid.as_str(), record.receipts.clock_ahead());
        match &mut self.pod {
            Some(pod) if pod.uid == uid => {
                pod.worst = pod.worst.max(delivery);
                if clock_ahead != 0 {
                    pod.clock_ahead = clock_ahead;
                }
            }
            _ => {
                self.end_pod();
                let version = Version::parse(&record.agent.version);
                let version = version.map(|one| format!("{}.{}", one.major, one.minor)).unwrap_or_default();
                *self.agents.entry(version).or_default() += 1;
                self.pod = Some(Pod { uid, worst: delivery, clock_ahead });
            }
        }
    }

    fn end_pod(&mut self) {
        let Some(Pod { uid, worst, clock_ahead }) = self.pod.take() else { return };
        self.held += u32::from(worst == Delivery::Held);
        let delivery = match worst {
            Delivery::Held | Delivery::Pending | Delivery::Unknown => v1::Delivery::Held,
            Delivery::Nothing => v1::Delivery::Nothing,
            Delivery::NotOnSocket => v1::Delivery::NotOnSocket,
            Delivery::NotInFiles => v1::Delivery::NotInFiles,
        };
        if delivery != v1::Delivery::Held || clock_ahead != 0 {
            self.problems.insert(uid, PodProblem { delivery, clock_ahead });
            if self.problems.len() > NAMED {
                self.problems.pop_last();
            }
        }
    }

    /// Enters what was counted.
    pub(super) fn enter(mut self, report: &mut IdentityReport) {
        self.end_pod();
        report.held = self.held;
        let problem = |(uid, problem): (&str, PodProblem)| v1::PodProblem {
            uid: uid.to_owned(),
            delivery: problem.delivery.into(),
            clock_ahead: problem.clock_ahead,
        };
        report.problems = self.problems.into_iter().map(problem).collect();
        report.agents = self.agents.into_iter().map(|(version, pods)| AgentCount { version, pods }).collect();
    }
}

impl Deliveries {
    pub(super) fn add(&mut self, report: &IdentityReport) {
        self.held += i64::from(report.held);
        let problems = report
            .problems
            .iter()
            .map(|one| (one.uid.clone(), PodProblem { delivery: one.delivery(), clock_ahead: one.clock_ahead }));
        for (uid, problem) in problems {
            self.problems.entry(uid).and_modify(|known| *known = known.worse(problem)).or_insert(problem);
        }
        while self.problems.len() > NAMED {
            self.problems.pop_last();
        }
        for AgentCount { version, pods } in &report.agents {
            *self.agents.entry(version.clone()).or_default() += i64::from(*pods);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Deliveries, DeliveryCount, NAMED, PodProblem, v1};
    use countersign_issuer::{
        receipts::Delivery,
        record::{AgentInfo, StreamRecord},
    };
    use countersign_proto::inspect::v1::IdentityReport;

    fn stream(pod: &str, session: &str, version: &str) -> StreamRecord {
        StreamRecord::new(pod, session, None, AgentInfo::new(version, &[]))
    }

    fn report(sessions: &[(StreamRecord, Delivery)]) -> IdentityReport {
        let mut count = DeliveryCount::default();
        for (record, delivery) in sessions {
            count.add(record, *delivery);
        }
        let mut report = IdentityReport::default();
        count.enter(&mut report);
        report
    }

    #[tokio::test]
    async fn a_pod_counts_by_the_worst_of_its_sessions() {
        let sessions = [
            (stream("a", "app", "0.1.0"), Delivery::Held),
            (stream("a", "proxy", "0.1.0"), Delivery::NotInFiles),
            (stream("b", "app", "0.1.3"), Delivery::Held),
            (stream("b", "proxy", "0.1.3"), Delivery::Held),
            (stream("c", "", "none"), Delivery::Unknown),
        ];
        let mut found = Deliveries::default();
        found.add(&report(&sessions));
        assert_eq!(found.held, 1);
        let problem = PodProblem { delivery: v1::Delivery::NotInFiles, clock_ahead: 0 };
        assert_eq!(found.problems, [("a".to_owned(), problem)].into());
        assert_eq!(found.agents, [("0.1".to_owned(), 2), (String::new(), 1)].into());
    }

    #[tokio::test]
    async fn of_many_problems_the_same_few_are_named_at_every_replica() {
        let sessions = |pods: &[u8]| -> Vec<_> {
            pods.iter().map(|pod| (stream(&format!("{pod:02}"), "", "0.1.0"), Delivery::Nothing)).collect()
        };
        let (even, odd): (Vec<u8>, Vec<u8>) = (0..40).partition(|pod| pod % 2 == 0);
        let (one, other) = (report(&sessions(&even)), report(&sessions(&odd)));
        assert_eq!(one.problems.len(), NAMED);
        let mut found = Deliveries::default();
        found.add(&other);
        found.add(&one);
        let named: Vec<_> = found.problems.into_keys().collect();
        assert_eq!(named, (0..10).map(|pod| format!("{pod:02}")).collect::<Vec<_>>());
    }
}
