//! Reports added up, and what may be said of them: a replica that cannot be asked makes the sum less than the truth, so a
//! number that depends on it is kept as it was, and never written as too low.

use std::collections::{BTreeMap, HashMap, HashSet};

use countersign_proto::inspect::v1::{IdentityReport, ReportResponse};
use jiff::Timestamp;

use super::{
    deliveries::Deliveries,
    receipts::{self, DomainReceipts},
};
use countersign_index::IdentityKey;

/// How often in a row a replica fails to answer before it is named: one that starts or is busy is not worth it.
const FAILURES: u32 = 2;

/// What was counted of a WorkloadIdentity at all replicas that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityCounts {
    /// Pods with an open stream.
    pub served: i64,
    /// Those of them whose agent is outdated.
    pub outdated: i64,
    /// The earliest end among what was issued on these streams.
    pub next_expiry: Option<Timestamp>,
    /// How it has arrived at these pods.
    pub deliveries: Deliveries,
}

/// Whether every replica is in the sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Every one.
    Whole,
    /// One did not answer, for the first time.
    Blurred,
    /// These cannot be asked, by name.
    Partial(Vec<String>),
}

/// What one round found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    identities: HashMap<IdentityKey, IdentityCounts>,
    /// What agents acknowledged, by trust domain; `None` unless every replica answered this round.
    pub receipts: Option<HashMap<String, DomainReceipts>>,
    /// The uids of pods with an open stream; `None` unless every replica answered this round, and is of a build that says so.
    pub connected: Option<HashSet<String>>,
    /// Pods with an agent that had no stream in this round and in the one before, by uid, with their namespaces; unknown as `connected`.
    pub unconnected: Option<HashMap<String, String>>,
    /// Whether every replica is in it.
    pub sight: Coverage,
}

impl Totals {
    /// Of one identity; zeros when no replica serves it.
    #[must_use]
    pub fn of(&self, key: &IdentityKey) -> &IdentityCounts {
        static NONE: IdentityCounts = IdentityCounts::NONE;
        self.identities.get(key).unwrap_or(&NONE)
    }

    /// The namespaces of pods that had no stream of late in one of two rounds, and did in the other.
    #[must_use]
    pub fn other_unconnected<'a>(&'a self, before: Option<&'a Self>) -> HashSet<&'a str> {
        let Some(now) = &self.unconnected else { return HashSet::new() };
        let before = before.and_then(|before| before.unconnected.as_ref());
        let lost = now.iter().filter(|(uid, _)| before.is_none_or(|before| !before.contains_key(*uid)));
        let back = before.into_iter().flatten().filter(|(uid, _)| !now.contains_key(*uid));
        lost.chain(back).map(|(_, namespace)| namespace.as_str()).collect()
    }

    /// `None`: it is not known; `Some(None)`: no replica names the trust domain.
    fn receipts_of(&self, trust_domain: &str) -> Option<Option<&DomainReceipts>> {
        self.receipts.as_ref().map(|receipts| receipts.get(trust_domain))
    }

    /// Whether this says something else of what the workloads of a trust domain acknowledged than `before` did.
    #[must_use]
    pub fn has_other_receipts(&self, before: Option<&Self>, trust_domain: &str) -> bool {
        before.is_none_or(|before| before.receipts_of(trust_domain) != self.receipts_of(trust_domain))
    }

    /// The identities of which this says something else than `before` did; `None`: of any.
    #[must_use]
    pub fn changed(&self, before: &Self) -> Option<HashSet<IdentityKey>> {
        if self.sight != before.sight {
            return None;
        }
        let keys = self.identities.keys().chain(before.identities.keys());
        Some(keys.filter(|key| self.of(key) != before.of(key)).cloned().collect())
    }
}

/// What one replica answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its name.
    pub replica: String,
    /// Its report, if it answered.
    pub report: Option<ReportResponse>,
}

/// The replicas' last answers.
#[derive(Debug, Default)]
pub struct ReplicaReports {
    known: BTreeMap<String, Known>,
}

#[derive(Debug, Default)]
struct Known {
    report: Option<ReportResponse>,
    failures: u32,
}

impl ReplicaReports {
    /// Enters a round: the answers of all replicas there are. One that failed once counts as it last answered.
    pub fn enter(&mut self, answers: Vec<Answer>) -> Totals {
        let mut before = std::mem::take(&mut self.known);
        for Answer { replica, report } in answers {
            let mut known = before.remove(&replica).unwrap_or_default();
            match report {
                Some(report) => known = Known { report: Some(report), failures: 0 },
                None => known.failures = known.failures.saturating_add(1),
            }
            self.known.insert(replica, known);
        }
        Totals {
            identities: self.sums(),
            receipts: self.receipts(),
            connected: self.connected(),
            unconnected: None,
            sight: self.sight(),
        }
    }

    fn receipts(&self) -> Option<HashMap<String, DomainReceipts>> {
        let answered = |known: &'_ Known| known.failures == 0;
        receipts::merged(self.known.values().map(|known| known.report.as_ref().filter(|_| answered(known))))
    }

    fn connected(&self) -> Option<HashSet<String>> {
        let answered = |known: &'_ Known| known.failures == 0;
        let reports: Vec<_> = self
            .known
            .values()
            .map(|known| known.report.as_ref().filter(|_| answered(known)))
            .collect::<Option<_>>()?;
        let open = reports.iter().flat_map(|report| &report.pods).filter(|pod| pod.open);
        reports.iter().all(|report| report.tells_receipts).then(|| open.map(|pod| pod.uid.clone()).collect())
    }

    fn sight(&self) -> Coverage {
        let unasked: Vec<_> =
            self.known.iter().filter(|(_, known)| known.failures >= FAILURES).map(|(name, _)| name.clone()).collect();
        if !unasked.is_empty() {
            return Coverage::Partial(unasked);
        }
        if self.known.values().any(|known| known.report.is_none()) { Coverage::Blurred } else { Coverage::Whole }
    }

    fn sums(&self) -> HashMap<IdentityKey, IdentityCounts> {
        let mut sums: HashMap<IdentityKey, IdentityCounts> = HashMap::new();
        let counted = self.known.values().filter(|known| known.failures < FAILURES);
        for report in counted.filter_map(|known| known.report.as_ref()).flat_map(|report| &report.identities) {
            let key = IdentityKey { namespace: report.namespace.clone(), name: report.name.clone() };
            sums.entry(key).or_default().add(report);
        }
        sums
    }
}

impl IdentityCounts {
    const NONE: Self = Self {
        served: 0,
        outdated: 0,
        next_expiry: None,
        deliveries: Deliveries { held: 0, problems: BTreeMap::new(), agents: BTreeMap::new() },
    };

    fn add(&mut self, report: &IdentityReport) {
        self.served += i64::from(report.pods);
        self.outdated += i64::from(report.outdated);
        let next = Timestamp::from_second(report.next_expiry).ok().filter(|_| report.next_expiry != 0);
        self.next_expiry = self.next_expiry.into_iter().chain(next).min();
        self.deliveries.add(report);
    }
}

/// The expiry to write where `written` is: kept while it is still to come and nothing ends before it, so that renewals,
/// which are no news, write nothing; `found` is what was counted for `served` pods.
#[must_use]
pub fn expiry(written: Option<Timestamp>, found: Option<Timestamp>, served: i64, now: Timestamp) -> Option<Timestamp> {
    if served == 0 {
        return None;
    }
    // Agents that moved here with what they have were issued nothing on their new streams: what was known still holds.
    let written = written.filter(|written| *written > now);
    match (written, found) {
        (Some(written), Some(found)) => Some(written.min(found)),
        (written, found) => written.or(found),
    }
}

#[cfg(test)]
mod tests {
    use countersign_proto::inspect::v1::DomainReport;

    use super::{
        Answer, Coverage, IdentityCounts, IdentityKey, IdentityReport, ReplicaReports, ReportResponse, expiry,
    };
    use jiff::Timestamp;

    fn key(name: &str) -> IdentityKey {
        IdentityKey { namespace: "shop".to_owned(), name: name.to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn answer(replica: &str, counts: &[(&str, u32, i64)]) -> Answer {
        let identity = |&(name, pods, next_expiry): &(&str, u32, i64)| IdentityReport {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            pods,
            outdated: 1,
            next_expiry,
            ..IdentityReport::default()
        };
        let identities = counts.iter().map(identity).collect();
        Answer { replica: replica.to_owned(), report: Some(ReportResponse { identities, ..Default::default() }) }
    }

    fn silence(replica: &str) -> Answer {
        Answer { replica: replica.to_owned(), report: None }
    }

    #[test]
    fn reports_are_added_up() {
        let mut reports = ReplicaReports::default();
        let totals = reports.enter(vec![answer("a", &[("x", 3, 70), ("y", 1, 0)]), answer("b", &[("x", 2, 50)])]);
        assert_eq!(
            *totals.of(&key("x")),
            IdentityCounts { served: 5, outdated: 2, next_expiry: Some(at(50)), ..IdentityCounts::default() }
        );
        assert_eq!(
            *totals.of(&key("y")),
            IdentityCounts { served: 1, outdated: 1, next_expiry: None, ..IdentityCounts::default() }
        );
        assert_eq!((totals.of(&key("z")), &totals.sight), (&IdentityCounts::default(), &Coverage::Whole));
    }

    #[test]
    fn a_replica_that_fails_once_counts_as_it_last_answered_and_is_named_when_it_fails_again() {
        let mut reports = ReplicaReports::default();
        let both = vec![answer("a", &[("x", 3, 70)]), answer("b", &[("x", 2, 50)])];
        let before = reports.enter(both.clone());
        let cut = vec![answer("a", &[("x", 3, 70)]), silence("b")];
        assert_eq!(reports.enter(cut.clone()), before);
        let totals = reports.enter(cut);
        assert_eq!(totals.sight, Coverage::Partial(vec!["b".to_owned()]));
        assert_eq!(totals.changed(&before), None, "it concerns any identity");
        assert_eq!(reports.enter(both), before, "and is back");
    }

    #[test]
    fn a_replica_of_which_nothing_is_known_yet_blurs_the_sight() {
        let mut reports = ReplicaReports::default();
        let cut = vec![answer("a", &[("x", 3, 70)]), silence("b")];
        assert_eq!(reports.enter(cut.clone()).sight, Coverage::Blurred);
        assert_eq!(reports.enter(cut).sight, Coverage::Partial(vec!["b".to_owned()]));
    }

    #[test]
    fn a_replica_that_is_gone_is_forgotten() {
        let mut reports = ReplicaReports::default();
        reports.enter(vec![answer("a", &[("x", 3, 70)]), answer("b", &[("x", 2, 50)])]);
        let totals = reports.enter(vec![answer("a", &[("x", 3, 70)])]);
        assert_eq!((totals.of(&key("x")).served, totals.sight), (3, Coverage::Whole));
    }

    #[test]
    fn only_identities_whose_sums_differ_have_changed() {
        let mut reports = ReplicaReports::default();
        let before = reports.enter(vec![answer("a", &[("x", 3, 70), ("y", 1, 60), ("gone", 1, 60)])]);
        let after = reports.enter(vec![answer("a", &[("x", 4, 70), ("y", 1, 60), ("new", 1, 60)])]);
        assert_eq!(after.changed(&before), Some([key("x"), key("gone"), key("new")].into()));
    }

    #[test]
    fn only_a_trust_domain_of_which_something_else_was_acknowledged_has_other_receipts() {
        let of = |sequences: &[(&str, u64)]| {
            let domain = |(name, published_sequence): &(&str, u64)| DomainReport {
                trust_domain: (*name).to_owned(),
                published_sequence: *published_sequence,
                sessions: Vec::new(),
            };
            let domains = sequences.iter().map(domain).collect();
            let report = ReportResponse { domains, tells_domains: true, ..Default::default() };
            ReplicaReports::default().enter(vec![Answer { replica: "a".to_owned(), report: Some(report) }])
        };
        let (before, after) = (of(&[("a", 1), ("b", 1), ("gone", 1)]), of(&[("a", 2), ("b", 1), ("new", 1)]));
        let differs = |name| after.has_other_receipts(Some(&before), name);
        assert_eq!(["a", "b", "gone", "new", "never"].map(differs), [true, false, true, true, false]);
        assert!(after.has_other_receipts(None, "b"), "nothing was known before");
        let unknown = ReplicaReports::default().enter(vec![silence("a")]);
        assert!(unknown.has_other_receipts(Some(&after), "b"), "and it is not known now");
    }

    #[test]
    fn an_expiry_is_written_anew_only_when_it_has_passed_or_an_earlier_one_came() {
        let (now, some) = (at(100), |second| Some(at(second)));
        for (written, found, served, writes) in [
            (None, some(150), 1, some(150)),
            (some(150), some(180), 1, some(150)),
            (some(150), some(120), 1, some(120)),
            (some(100), some(180), 1, some(180)),
            (some(150), None, 1, some(150)),
            (some(90), None, 1, None),
            (some(150), some(150), 0, None),
        ] {
            assert_eq!(expiry(written, found, served, now), writes, "{written:?} {found:?} {served}");
        }
    }
}
