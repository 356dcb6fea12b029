//! The part of the status that lives in streams. It is written only as what it surely is: where a replica is missing from
//! the sums, what stood there before stays.

use countersign_crds::{WorkloadIdentityStatus, condition::STATS_COMPLETE};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    controllers::conditions,
    inspect::identity_counts::{Coverage, Totals, expiry},
};
use countersign_index::IdentityKey;

/// What the status says of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    /// `pods.served`.
    pub(super) served: Option<i64>,
    /// `outdatedAgents`.
    pub(super) outdated: Option<i64>,
    /// `nextExpiry`.
    pub(super) next_expiry: Option<Timestamp>,
    /// The condition `StatsComplete`.
    pub(super) whole: Whole,
}

/// Whether the numbers are of all replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// They are, or there can be no more than was counted.
    Yes,
    /// Not known this time: the condition stays.
    AsBefore,
    /// These replicas cannot be asked.
    No(Vec<String>),
}

/// What to write of `key`, which `matched` pods are selected by, where the status is `old`.
pub(super) fn live(
    old: &WorkloadIdentityStatus,
    totals: Option<&Totals>,
    key: &IdentityKey,
    matched: i64,
    now: Timestamp,
) -> Live {
    let written = old.next_expiry.as_ref().map(|written| written.0);
    let whole = match totals.map(|totals| (totals.of(key), &totals.sight)) {
        // No pod is counted twice but one that moved a moment ago.
        Some((counts, sight)) if *sight == Coverage::Whole || counts.served >= matched => {
            let served = counts.served.min(matched);
            return Live {
                served: Some(served),
                outdated: Some(counts.outdated.min(served)),
                next_expiry: expiry(written, counts.next_expiry, served, now),
                whole: Whole::Yes,
            };
        }
        Some((_, Coverage::Partial(replicas))) => Whole::No(replicas.clone()),
        Some(_) | None => Whole::AsBefore,
    };
    let served = old.pods.and_then(|pods| pods.served).map(|served| served.min(matched));
    Live { served, outdated: old.outdated_agents, next_expiry: written, whole }
}

/// The condition `StatsComplete`; none before anything was counted.
pub(super) fn condition(
    whole: &Whole,
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> Option<Condition> {
    let (status, reason, message) = match whole {
        Whole::AsBefore => {
            let old = old.iter().find(|one| one.type_ == STATS_COMPLETE)?;
            return Some(Condition { observed_generation: generation, ..old.clone() });
        }
        Whole::Yes => {
            ("True", Reason::AllReplicasAsked, "what lives in streams is counted at every replica".to_owned())
        }
        Whole::No(replicas) => (
            "False",
            Reason::ReplicaUnreachable,
            format!(
                "{} cannot be asked for its streams: what is counted there is as it was before",
                replicas.join(", ")
            ),
        ),
    };
    Some(conditions::condition(STATS_COMPLETE, (status, reason, message), generation, old, now))
}

#[cfg(test)]
mod tests {
    use super::{Live, Whole, condition, live};
    use crate::inspect::identity_counts::{Answer, ReplicaReports, Totals};
    use countersign_crds::{PodCounts, WorkloadIdentityStatus};
    use countersign_index::IdentityKey;
    use countersign_proto::inspect::v1::{IdentityReport, ReportResponse};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key() -> IdentityKey {
        IdentityKey { namespace: "shop".to_owned(), name: "cart".to_owned() }
    }

    fn old() -> WorkloadIdentityStatus {
        WorkloadIdentityStatus {
            pods: Some(PodCounts { matched: 9, not_injected: 0, served: Some(7), held: Some(6) }),
            next_expiry: Some(Time(at(500))),
            outdated_agents: Some(2),
            ..WorkloadIdentityStatus::default()
        }
    }

    /// Replica `a` serves `pods`; replica `b` serves none, or did not answer so often.
    fn totals(pods: u32, silent: u32) -> Totals {
        let report = |pods| {
            let identities = vec![IdentityReport {
                namespace: "shop".to_owned(),
                name: "cart".to_owned(),
                pods,
                outdated: 1,
                next_expiry: 900,
                oldest_issuance: 100,
                ..IdentityReport::default()
            }];
            Some(ReportResponse { identities, ..ReportResponse::default() })
        };
        let answer = |replica: &str, report| Answer { replica: replica.to_owned(), report };
        let mut reports = ReplicaReports::default();
        if silent == 0 {
            return reports.enter(vec![answer("a", report(pods)), answer("b", Some(ReportResponse::default()))]);
        }
        let mut round = || reports.enter(vec![answer("a", report(pods)), answer("b", None)]);
        (1..silent).for_each(|_| drop(round()));
        round()
    }

    #[test]
    fn what_every_replica_counted_is_written() {
        let live = live(&old(), Some(&totals(4, 0)), &key(), 9, at(100));
        let whole = Whole::Yes;
        assert_eq!(live, Live { served: Some(4), outdated: Some(1), next_expiry: Some(at(500)), whole });
    }

    // Never wrong zeros.
    #[test]
    fn numbers_stay_while_a_replica_cannot_be_asked() {
        let kept = |whole| Live { served: Some(7), outdated: Some(2), next_expiry: Some(at(500)), whole };
        assert_eq!(live(&old(), None, &key(), 9, at(100)), kept(Whole::AsBefore));
        assert_eq!(live(&old(), Some(&totals(4, 1)), &key(), 9, at(100)), kept(Whole::AsBefore));
        assert_eq!(live(&old(), Some(&totals(4, 2)), &key(), 9, at(100)), kept(Whole::No(vec!["b".to_owned()])));
        let unknown = live(&WorkloadIdentityStatus::default(), Some(&totals(0, 2)), &key(), 9, at(100));
        assert_eq!(unknown.served, None);
    }

    #[test]
    fn there_can_be_no_more_than_matched() {
        for silent in [0, 1, 2] {
            let live = live(&old(), Some(&totals(4, silent)), &key(), 3, at(100));
            assert_eq!((live.served, live.whole), (Some(3), Whole::Yes));
        }
    }

    #[test]
    fn the_condition_names_who_cannot_be_asked_and_keeps_its_transition_time() {
        let no = Whole::No(vec!["operator-b".to_owned()]);
        assert_eq!(condition(&Whole::AsBefore, Some(1), &[], at(5)), None);
        let first = condition(&no, Some(1), &[], at(5)).unwrap();
        assert!(first.status == "False" && first.message.contains("operator-b"), "{first:?}");
        let later = condition(&no, Some(2), std::slice::from_ref(&first), at(9)).unwrap();
        assert_eq!((later.last_transition_time.0, later.observed_generation), (at(5), Some(2)));
        let kept = condition(&Whole::AsBefore, Some(2), std::slice::from_ref(&later), at(9)).unwrap();
        assert_eq!(kept, later);
        let well = condition(&Whole::Yes, Some(2), &[later], at(9)).unwrap();
        assert_eq!((well.status.as_str(), well.last_transition_time.0), ("True", at(9)));
    }
}
