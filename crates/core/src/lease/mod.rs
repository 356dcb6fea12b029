//! Who writes. Of several replicas the one that holds the lease writes; the others stand by. A replica judges by its own
//! monotonic clock alone: a holder is dead when its lease has not changed for the lease's duration *as this replica saw
//! it*, and a holder stops itself [`LeaseConfig::renew_deadline`] after it sent the last renewal that succeeded. Nobody compares
//! another's timestamps with its own clock, so clocks may be wrong by hours; only their rates must agree roughly.

mod candidate;

use std::time::Duration;

use jiff::Timestamp;

pub use candidate::Candidate;

/// A point on one process's monotonic clock, as the time since a start of its own choosing. Those of two processes have
/// nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonotonicTime(Duration);

impl MonotonicTime {
    /// So long after the start.
    #[must_use]
    pub const fn since_start(span: Duration) -> Self {
        Self(span)
    }

    /// So long after this moment.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// How long it is from this moment until `later`; zero when that has passed.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }
}

/// How long things last, as in client-go's leader election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

/// LeaseConfig under which two could lead at once, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a lease of {lease_duration:?} with a renewal deadline of {renew_deadline:?} and a retry every {retry_period:?} does not hold: \
     the lease is whole seconds, longer than the deadline, and that is longer than two retries"
)]
pub struct TermsError {
    /// As asked.
    pub lease_duration: Duration,
    /// As asked.
    pub renew_deadline: Duration,
    /// As asked.
    pub retry_period: Duration,
}

impl LeaseConfig {
    /// 15 s, 10 s and 2 s, as every Kubernetes controller has them.
    pub const DEFAULT: Self = Self {
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    };

    /// LeaseConfig of one's own.
    ///
    /// # Errors
    /// When a leader would not stop before another may start, or could not renew in time.
    pub fn new(lease_duration: Duration, renew_deadline: Duration, retry_period: Duration) -> Result<Self, TermsError> {
        let whole = lease_duration.subsec_nanos() == 0;
        let room = !retry_period.is_zero() && retry_period.saturating_mul(2) < renew_deadline;
        if whole && room && renew_deadline < lease_duration {
            return Ok(Self { lease_duration, renew_deadline, retry_period });
        }
        Err(TermsError { lease_duration, renew_deadline, retry_period })
    }

    /// How long others wait for a holder that does not renew; whole seconds.
    #[must_use]
    pub const fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long a holder leads after a renewal; shorter than the lease.
    #[must_use]
    pub const fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// How often a holder renews and others look.
    #[must_use]
    pub const fn retry_period(&self) -> Duration {
        self.retry_period
    }
}

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// How long others wait for the holder; zero: not said.
    pub duration: Duration,
    /// When the holder took it, by the holder's clock: for people only.
    pub acquired: Timestamp,
    /// When the holder renewed it, by the holder's clock: that it changes counts, not what it says.
    pub renewed: Timestamp,
    /// How often it changed hands.
    pub transitions: u32,
}

/// A lease as one process knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What is stored.
    pub record: Record,
    /// When this process first saw it so.
    pub seen: MonotonicTime,
    /// When this process sent the last renewal that succeeded; absent unless it is the holder.
    pub renewed: Option<MonotonicTime>,
}

/// What is to be done about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody holds it, or its holder is dead: write it in our name.
    Acquire,
    /// It is ours, and due: write it again.
    Renew,
    /// It is ours, and renewed lately.
    Hold {
        /// The next renewal.
        until: MonotonicTime,
    },
    /// Another's.
    Follow {
        /// When it may be taken, unless it changes before.
        until: MonotonicTime,
    },
}

/// What `id` is to do about a lease at `now`.
#[must_use]
pub fn evaluate(lease: &Lease, id: &str, terms: &LeaseConfig, now: MonotonicTime) -> Decision {
    let record = &lease.record;
    if record.holder.is_empty() {
        return Decision::Acquire;
    }
    if record.holder == id {
        // Ours, but unknown since when: an answer was lost. Nothing is led before a write has succeeded.
        let due = lease.renewed.map(|renewed| renewed.after(terms.retry_period));
        return due.filter(|due| now < *due).map_or(Decision::Renew, |until| Decision::Hold { until });
    }
    let duration = if record.duration.is_zero() { terms.lease_duration } else { record.duration };
    let until = lease.seen.after(duration);
    if now < until { Decision::Follow { until } } else { Decision::Acquire }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::{Decision, Lease, LeaseConfig, MonotonicTime, Record, evaluate};
    use jiff::Timestamp;
    use std::time::Duration;

    fn at(second: u64) -> MonotonicTime {
        MonotonicTime::since_start(Duration::from_secs(second))
    }

    fn lease(holder: &str, seen: u64, renewed: Option<u64>) -> Lease {
        let record = Record {
            holder: holder.to_owned(),
            duration: Duration::from_secs(15),
            acquired: Timestamp::UNIX_EPOCH,
            renewed: Timestamp::UNIX_EPOCH,
            transitions: 0,
        };
        Lease { record, seen: at(seen), renewed: renewed.map(at) }
    }

    #[test]
    fn what_is_to_be_done_about_a_lease() {
        use Decision::{Acquire, Follow, Hold, Renew};
        let unsaid = |mut lease: Lease| {
            lease.record.duration = Duration::ZERO;
            lease
        };
        for (lease, now, decision) in [
            (lease("", 100, None), 100, Acquire),
            (lease("b", 100, None), 100, Follow { until: at(115) }),
            (lease("b", 100, None), 114, Follow { until: at(115) }),
            (lease("b", 100, None), 115, Acquire),
            (unsaid(lease("b", 100, None)), 114, Follow { until: at(115) }),
            (lease("a", 100, None), 100, Renew),
            (lease("a", 100, Some(100)), 101, Hold { until: at(102) }),
            (lease("a", 100, Some(100)), 102, Renew),
            (lease("a", 100, Some(100)), 500, Renew),
        ] {
            assert_eq!(evaluate(&lease, "a", &LeaseConfig::DEFAULT, at(now)), decision, "{lease:?} at {now}");
        }
    }

    #[test]
    fn a_holders_timestamps_count_for_nothing() {
        for renewed in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let mut lease = lease("b", 100, None);
            (lease.record.renewed, lease.record.acquired) = (renewed, renewed);
            assert_eq!(evaluate(&lease, "a", &LeaseConfig::DEFAULT, at(101)), Decision::Follow { until: at(115) });
            assert_eq!(evaluate(&lease, "a", &LeaseConfig::DEFAULT, at(115)), Decision::Acquire);
        }
    }

    // A leader stops itself before others may start.
    #[test]
    fn terms_under_which_two_could_lead_are_refused() {
        let terms = |lease, deadline, retry| {
            LeaseConfig::new(
                Duration::from_millis(lease),
                Duration::from_millis(deadline),
                Duration::from_millis(retry),
            )
        };
        assert_eq!(terms(15_000, 10_000, 2_000), Ok(LeaseConfig::DEFAULT));
        for (lease, deadline, retry) in [
            (10_000, 10_000, 2_000),
            (10_000, 11_000, 2_000),
            (15_000, 4_000, 2_000),
            (15_000, 10_000, 0),
            (15_500, 10_000, 2_000),
        ] {
            assert!(terms(lease, deadline, retry).is_err(), "{lease} {deadline} {retry}");
        }
    }
}
