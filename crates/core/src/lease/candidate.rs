//! One replica's part: what it knows of the lease, whether it leads, and what it would write.

use jiff::Timestamp;

use super::{Decision, Lease, LeaseConfig, MonotonicTime, Record, evaluate};

/// One that may lead. Its id must be of this process alone, never used by one before or beside it.
#[derive(Clone, Debug)]
pub struct Candidate {
    id: String,
    terms: LeaseConfig,
    lease: Option<Lease>,
}

impl Candidate {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(id: String, terms: LeaseConfig) -> Self {
        Self { id, terms, lease: None }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its terms.
    #[must_use]
    pub fn terms(&self) -> &LeaseConfig {
        &self.terms
    }

    /// Who holds the lease as last seen.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.lease.as_ref().map(|lease| lease.record.holder.as_str()).filter(|holder| !holder.is_empty())
    }

    /// The lease was read, the answer came at `at`. What has not changed keeps the time it was first seen; a lease that
    /// vanished under another holder still counts for its duration, for that holder does not know.
    pub fn observe(&mut self, stored: Option<Record>, at: MonotonicTime) {
        let known = self.lease.take();
        self.lease = match (stored, known) {
            (Some(record), Some(known)) if known.record == record => Some(known),
            (Some(record), known) => {
                let renewed = known.and_then(|known| known.renewed).filter(|_| record.holder == self.id);
                Some(Lease { record, seen: at, renewed })
            }
            (None, Some(known)) if !known.record.holder.is_empty() => Some(known),
            (None, _) => None,
        };
    }

    /// The lease was written in our name by a request sent at `sent`.
    pub fn wrote(&mut self, record: Record, sent: MonotonicTime) {
        self.lease = Some(Lease { record, seen: sent, renewed: Some(sent) });
    }

    /// What to do at `now`.
    #[must_use]
    pub fn decide(&self, now: MonotonicTime) -> Decision {
        self.lease.as_ref().map_or(Decision::Acquire, |lease| evaluate(lease, &self.id, &self.terms, now))
    }

    /// When it stops to lead unless it renews; absent: it does not lead.
    #[must_use]
    pub fn leads_until(&self) -> Option<MonotonicTime> {
        self.lease.as_ref()?.renewed.map(|renewed| renewed.after(self.terms.renew_deadline()))
    }

    /// Whether it leads at `now`.
    #[must_use]
    pub fn leads(&self, now: MonotonicTime) -> bool {
        self.leads_until().is_some_and(|until| now < until)
    }

    /// The lease in our name; `now` is for people.
    #[must_use]
    pub fn record(&self, now: Timestamp) -> Record {
        let known = self.lease.as_ref().map(|lease| &lease.record);
        let ours = known.filter(|record| record.holder == self.id);
        let transitions = known.map_or(0, |record| record.transitions);
        Record {
            holder: self.id.clone(),
            duration: self.terms.lease_duration(),
            acquired: ours.map_or(now, |record| record.acquired),
            renewed: now,
            transitions: if known.is_none() || ours.is_some() { transitions } else { transitions.saturating_add(1) },
        }
    }

    /// Gives the lease up: from here on it does not lead. What to write so that another need not wait; absent when the
    /// lease is not ours.
    pub fn release(&mut self, now: Timestamp) -> Option<Record> {
        let lease = self.lease.as_mut().filter(|lease| lease.record.holder == self.id)?;
        lease.renewed = None;
        Some(Record { holder: String::new(), renewed: now, ..lease.record.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::Candidate;
    use crate::lease::{Decision, LeaseConfig, MonotonicTime, Record};
    use jiff::Timestamp;
    use std::time::Duration;

    fn at(second: u64) -> MonotonicTime {
        MonotonicTime::since_start(Duration::from_secs(second))
    }

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn candidate(id: &str) -> Candidate {
        Candidate::new(id.to_owned(), LeaseConfig::DEFAULT)
    }

    /// `id` has taken the lease with a request sent at second `sent`.
    fn leader(id: &str, sent: u64) -> (Candidate, Record) {
        let mut leader = candidate(id);
        leader.observe(None, at(sent));
        let record = leader.record(wall(7));
        leader.wrote(record.clone(), at(sent));
        (leader, record)
    }

    #[test]
    fn a_leader_leads_until_its_deadline_after_the_last_renewal_was_sent() {
        let (leader, _) = leader("a", 100);
        assert!(leader.leads(at(100)) && leader.leads(at(109)));
        assert!(!leader.leads(at(110)));
        assert_eq!(leader.decide(at(110)), Decision::Renew, "it may still be the holder, and tries");
    }

    #[test]
    fn a_leader_that_sees_another_holder_leads_no_longer() {
        let (mut leader, record) = leader("a", 100);
        leader.observe(Some(Record { holder: "b".to_owned(), ..record }), at(101));
        assert!(!leader.leads(at(101)));
    }

    #[test]
    fn a_follower_counts_from_the_last_change_it_saw() {
        let mut follower = candidate("b");
        let (leader, record) = leader("a", 100);
        follower.observe(Some(record.clone()), at(1000));
        follower.observe(Some(record), at(1010));
        assert_eq!(follower.decide(at(1014)), Decision::Follow { until: at(1015) });
        follower.observe(Some(leader.record(wall(8))), at(1014));
        assert_eq!(follower.decide(at(1015)), Decision::Follow { until: at(1029) });
    }

    #[test]
    fn a_lease_that_vanished_is_still_its_holders_for_its_duration() {
        let mut follower = candidate("b");
        follower.observe(Some(leader("a", 100).1), at(100));
        follower.observe(None, at(105));
        assert_eq!(follower.decide(at(114)), Decision::Follow { until: at(115) });
        assert_eq!(follower.decide(at(115)), Decision::Acquire);
    }

    #[test]
    fn a_lease_in_our_name_whose_answer_was_lost_is_led_only_after_a_renewal() {
        let (_, record) = leader("a", 100);
        let mut same = candidate("a");
        same.observe(Some(record), at(101));
        assert!(!same.leads(at(101)));
        assert_eq!(same.decide(at(101)), Decision::Renew);
    }

    #[test]
    fn a_released_lease_is_free_at_once_and_led_by_nobody() {
        let (mut leader, _) = leader("a", 100);
        let released = leader.release(wall(9)).unwrap();
        assert!(!leader.leads(at(100)));
        let mut follower = candidate("b");
        follower.observe(Some(released), at(100));
        assert_eq!(follower.decide(at(100)), Decision::Acquire);
        assert_eq!(follower.release(wall(9)), None, "what is not ours is not released");
    }

    #[test]
    fn a_change_of_hands_is_counted_and_a_renewal_is_not() {
        let (leader, first) = leader("a", 100);
        assert_eq!(first.transitions, 0);
        let renewed = leader.record(wall(9));
        assert_eq!((renewed.transitions, renewed.acquired, renewed.renewed), (0, wall(7), wall(9)));
        let mut follower = candidate("b");
        follower.observe(Some(renewed), at(100));
        let taken = follower.record(wall(50));
        assert_eq!((taken.transitions, taken.acquired, taken.holder.as_str()), (1, wall(50), "b"));
    }
}
