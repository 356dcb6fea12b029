//! Acknowledgements of all replicas taken together: whether everyone who is expected to has the bundle as it is now, and who has
//! not. *Expected* are the sessions of live pods whose agents may use something that they were issued, connected or not, and can
//! acknowledge. What a replica does not tell is unknown, not zero. Besides, which agents claim a newer bundle than there is.

use std::collections::HashMap;

use countersign_core::journal::Receipts;
use countersign_index::SharedIndex;
use countersign_proto::inspect::v1::{ReportResponse, SessionReport};
use jiff::Timestamp;

/// What all replicas report of a trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainReceipts {
    /// The lowest sequence that a replica publishes; 0: one publishes none.
    published: u64,
    sessions: Vec<SessionReceipt>,
}

/// What is known of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SessionReceipt {
    pod_uid: String,
    session: String,
    sequence: u64,
    unable: bool,
    /// A higher sequence than it was sent, as its agent claims; 0: none.
    claimed: u64,
}

/// Agents that claim to have a newer bundle than there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewerClaims {
    /// How many agents: one in each pod.
    pub agents: usize,
    /// The highest sequence that one of them claims; 0: none does.
    pub highest: u64,
    /// The uids of their pods, at most [`AckSummary::NAMED`].
    pub pods: Vec<String>,
}

/// How a trust domain's sessions stand to a sequence of its bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckSummary {
    /// Have acknowledged it.
    pub acknowledged: usize,
    /// Are expected to.
    pub expected: usize,
    /// Cannot.
    pub unable: usize,
    /// The uids of pods that have not, at most [`AckSummary::NAMED`].
    pub laggards: Vec<String>,
    /// Whether every replica publishes it.
    pub published_everywhere: bool,
}

impl AckSummary {
    /// How many pods are named.
    pub const NAMED: usize = 3;

    /// Whether everyone has it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.published_everywhere && self.acknowledged == self.expected
    }

    /// What follows for the journal whose bundle has this sequence; an agent acknowledges only once nothing is left of what a
    /// tainted authority signed, so that all of `tainted` are replaced once everyone has.
    #[must_use]
    pub fn receipts(&self, sequence: u64, tainted: impl Iterator<Item = String>) -> Receipts {
        if !self.is_complete() {
            return Receipts::default();
        }
        Receipts { acknowledged: Some(sequence), replaced: tainted.collect() }
    }
}

impl DomainReceipts {
    /// Of the bundle that every replica publishes; `None` if one publishes none.
    #[must_use]
    pub fn published_everywhere(&self) -> Option<u64> {
        (self.published > 0).then_some(self.published)
    }

    /// How the sessions of pods that are alive stand to `sequence`.
    #[must_use]
    pub fn summary(&self, sequence: u64, is_alive: impl Fn(&str, &str) -> bool) -> AckSummary {
        let mut summary = AckSummary { published_everywhere: self.published >= sequence, ..AckSummary::default() };
        for one in self.sessions.iter().filter(|one| is_alive(&one.pod_uid, &one.session)) {
            if one.unable {
                summary.unable += 1;
                continue;
            }
            summary.expected += 1;
            if one.sequence >= sequence {
                summary.acknowledged += 1;
            } else if summary.laggards.len() < AckSummary::NAMED && !summary.laggards.contains(&one.pod_uid) {
                summary.laggards.push(one.pod_uid.clone());
            }
        }
        summary
    }

    /// Of the pods that are alive, those whose agents claim a higher sequence than `newest`.
    #[must_use]
    pub fn newer_claims(&self, newest: u64, is_alive: impl Fn(&str, &str) -> bool) -> NewerClaims {
        let claims = self.sessions.iter().filter(|one| one.claimed > newest && is_alive(&one.pod_uid, &one.session));
        let highest = claims.clone().map(|one| one.claimed).max().unwrap_or(0);
        let mut pods: Vec<String> = claims.map(|one| one.pod_uid.clone()).collect();
        // The sessions of one pod follow each other.
        pods.dedup();
        let agents = pods.len();
        pods.truncate(AckSummary::NAMED);
        NewerClaims { agents, highest, pods }
    }
}

/// Whether a session, by the uid of its pod and its name, is one of a pod that is alive at `now`.
pub fn is_entitled(index: &SharedIndex, now: Timestamp) -> impl Fn(&str, &str) -> bool {
    move |uid, session| index.read(|index| index.alive(uid, now) && index.has_session(uid, session))
}

/// The reports of all replicas, by trust domain. `None` if one did not answer, or is of a build that does not tell.
#[must_use]
pub fn merged<'a>(
    reports: impl Iterator<Item = Option<&'a ReportResponse>>,
) -> Option<HashMap<String, DomainReceipts>> {
    let reports: Vec<&ReportResponse> = reports.collect::<Option<_>>()?;
    if reports.iter().any(|report| !report.tells_domains) {
        return None;
    }
    let mut sessions: HashMap<&str, HashMap<(&str, &str), &SessionReport>> = HashMap::new();
    let mut published: HashMap<&str, Vec<u64>> = HashMap::new();
    for report in reports.iter().flat_map(|report| &report.domains) {
        published.entry(&report.trust_domain).or_default().push(report.published_sequence);
        let of_domain = sessions.entry(&report.trust_domain).or_default();
        for session in &report.sessions {
            of_domain
                .entry((&session.pod_uid, &session.session))
                .and_modify(|known| *known = newer(known, session))
                .or_insert(session);
        }
    }
    // A replica that does not name the trust domain publishes none of it.
    let published = |name: &str| {
        let everywhere = published.get(name).filter(|sequences| sequences.len() == reports.len());
        everywhere.and_then(|sequences| sequences.iter().min().copied()).unwrap_or(0)
    };
    let receipt = |one: &SessionReport| SessionReceipt {
        pod_uid: one.pod_uid.clone(),
        session: one.session.clone(),
        sequence: one.sequence,
        unable: one.unable,
        claimed: one.claimed_sequence,
    };
    let merge = |(name, sessions): (&str, HashMap<_, &SessionReport>)| {
        let mut sessions: Vec<_> = sessions.into_values().map(receipt).collect();
        sessions.sort_by(|a, b| (&a.pod_uid, &a.session).cmp(&(&b.pod_uid, &b.session)));
        (name.to_owned(), DomainReceipts { published: published(name), sessions })
    };
    Some(sessions.into_iter().map(merge).collect())
}

/// Of two reports of one session the one that says how it is now: an open stream before one that has ended, then the one that
/// ends later, then the one that acknowledged more.
fn newer<'a>(one: &'a SessionReport, other: &'a SessionReport) -> &'a SessionReport {
    let order = |report: &SessionReport| (report.departed_until == 0, report.departed_until, report.sequence);
    if order(other) > order(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::{AckSummary, NewerClaims, ReportResponse, SessionReport, merged};
    use countersign_core::journal::Receipts;
    use countersign_proto::inspect::v1::DomainReport;

    const DOMAIN: &str = "example.org";

    fn session(pod: &str, sequence: u64) -> SessionReport {
        SessionReport { pod_uid: pod.to_owned(), sequence, ..SessionReport::default() }
    }

    fn departed(pod: &str, sequence: u64) -> SessionReport {
        SessionReport { departed_until: 1_000, ..session(pod, sequence) }
    }

    fn report(published_sequence: u64, sessions: &[SessionReport]) -> ReportResponse {
        let trust_domain = DOMAIN.to_owned();
        let domains = vec![DomainReport { trust_domain, published_sequence, sessions: sessions.to_vec() }];
        ReportResponse { domains, tells_domains: true, ..ReportResponse::default() }
    }

    fn summary(reports: &[ReportResponse], sequence: u64) -> AckSummary {
        merged(reports.iter().map(Some)).unwrap()[DOMAIN].summary(sequence, |_, _| true)
    }

    #[test]
    fn everyone_at_every_replica_counts_once() {
        let both = [report(7, &[session("a", 7), session("b", 6)]), report(7, &[session("c", 7)])];
        let found = summary(&both, 7);
        assert_eq!((found.acknowledged, found.expected, found.laggards.as_slice()), (2, 3, &["b".to_owned()][..]));
        assert!(!found.is_complete());
        let all = [report(7, &[session("a", 7)]), report(7, &[session("c", 8)])];
        assert!(summary(&all, 7).is_complete());
    }

    #[test]
    fn who_has_moved_to_another_replica_is_as_it_is_there() {
        let moved = [report(7, &[departed("a", 6)]), report(7, &[session("a", 7)])];
        assert_eq!((summary(&moved, 7).acknowledged, summary(&moved, 7).expected), (1, 1));
        let back = [report(7, &[session("a", 6)]), report(7, &[departed("a", 7)])];
        assert_eq!((summary(&back, 7).acknowledged, summary(&back, 7).expected), (0, 1));
    }

    // R53: whoever is offline and may still use its credential is awaited up to the bound.
    #[test]
    fn who_is_not_connected_is_expected_while_its_pod_lives() {
        let reports = [report(7, &[departed("a", 6), session("b", 7)])];
        assert_eq!(summary(&reports, 7).laggards, ["a"]);
        let without = merged(reports.iter().map(Some)).unwrap()[DOMAIN].summary(7, |pod, _| pod != "a");
        assert!(without.is_complete(), "its pod has ended");
    }

    #[test]
    fn who_cannot_acknowledge_is_shown_apart_and_never_awaited() {
        let unable = SessionReport { unable: true, ..session("old", 0) };
        let found = summary(&[report(7, &[unable, session("a", 7)])], 7);
        assert_eq!((found.acknowledged, found.expected, found.unable), (1, 1, 1));
        assert!(found.is_complete());
    }

    #[test]
    fn a_replica_that_does_not_answer_or_does_not_tell_makes_all_of_it_unknown() {
        let one = report(7, &[session("a", 7)]);
        assert!(merged([Some(&one), None].into_iter()).is_none());
        let earlier_build = ReportResponse::default();
        assert!(merged([Some(&one), Some(&earlier_build)].into_iter()).is_none());
    }

    // An agent could otherwise get from it what the others do not sign any more.
    #[test]
    fn a_replica_that_publishes_an_older_bundle_is_awaited() {
        let reports = [report(7, &[session("a", 7)]), report(6, &[])];
        assert!(!summary(&reports, 7).is_complete());
        let silent = ReportResponse { tells_domains: true, ..ReportResponse::default() };
        assert!(!summary(&[report(7, &[session("a", 7)]), silent], 7).is_complete());
    }

    #[test]
    fn at_most_three_laggards_are_named() {
        let sessions: Vec<_> = ["a", "b", "c", "d"].map(|pod| session(pod, 6)).into();
        assert_eq!(summary(&[report(7, &sessions)], 7).laggards, ["a", "b", "c"]);
    }

    #[test]
    fn whoever_claims_more_than_there_is_is_counted_by_pod_and_three_are_named() {
        let claim = |pod: &str, session: &str, claimed_sequence| SessionReport {
            claimed_sequence,
            session: session.to_owned(),
            ..self::session(pod, 7)
        };
        let one = report(7, &[claim("a", "app", 9), claim("b", "", 7), claim("c", "", 0), claim("dead", "", 9)]);
        let other = report(7, &[claim("a", "proxy", 8), claim("d", "", 8), claim("e", "", 8), claim("f", "", 8)]);
        let receipts = &merged([Some(&one), Some(&other)].into_iter()).unwrap()[DOMAIN];
        let found = receipts.newer_claims(7, |pod, _| pod != "dead");
        assert_eq!((found.agents, found.highest), (4, 9));
        assert_eq!(found.pods, ["a", "d", "e"]);
        assert_eq!(receipts.newer_claims(9, |_, _| true), NewerClaims::default(), "as much as there is");
        assert!(receipts.summary(8, |_, _| true).laggards.contains(&"a".to_owned()), "a claim is no acknowledgement");
    }

    // It has reconnected elsewhere, and says there what it has.
    #[test]
    fn what_an_agent_claimed_on_an_earlier_stream_counts_no_longer() {
        let claimed = SessionReport { claimed_sequence: 9, ..departed("a", 7) };
        let of = |reports: &[ReportResponse]| {
            merged(reports.iter().map(Some)).unwrap()[DOMAIN].newer_claims(7, |_, _| true).agents
        };
        assert_eq!(of(&[report(7, std::slice::from_ref(&claimed)), report(7, &[])]), 1);
        assert_eq!(of(&[report(7, &[claimed]), report(7, &[session("a", 7)])]), 0);
    }

    #[test]
    fn only_when_everyone_has_it_the_journal_hears_of_it() {
        let tainted = || ["t".to_owned()].into_iter();
        let waiting = summary(&[report(7, &[session("a", 6)])], 7);
        assert_eq!(waiting.receipts(7, tainted()), Receipts::default());
        let complete = summary(&[report(7, &[session("a", 7)])], 7);
        assert_eq!(
            complete.receipts(7, tainted()),
            Receipts { acknowledged: Some(7), replaced: ["t".to_owned()].into() }
        );
    }
}
