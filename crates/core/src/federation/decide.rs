//! The decision: which bundle is kept, and when to poll next.

use jiff::Timestamp;

use super::candidate::Candidate;
use super::endpoint::{Endpoint, Profile};
use super::flag::Flag;
use super::poll::{Fetched, Observation, poll_target};
use super::refusal::{FetchError, Refusal};
use super::schedule::{LONGEST_INTERVAL, SHORTEST_INTERVAL, plus, poll_interval};
use super::spec::{Bootstrap, RemoteSpec};
use super::stored::{Failure, Kept, Origin, StoredRemote};
use super::{Remote, Stored};
use crate::bundle::succeeding;

/// What becomes of a remote trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be stored.
    pub stored: StoredRemote,
    /// Whether it differs from what was stored, and so is to be written.
    pub is_changed: bool,
    /// What came of the poll, if there was one.
    pub poll: Option<PollOutcome>,
    /// When to poll next; a time that has passed means now. After a poll it lies between [`SHORTEST_INTERVAL`] and
    /// [`LONGEST_INTERVAL`] ahead, and two polls are never closer than [`SHORTEST_INTERVAL`]. `None`: not at all.
    pub next_poll: Option<Timestamp>,
    /// When to decide again, even if nothing is polled or changed: what is handed out, or a flag, changes then. `None`: never.
    pub next_change: Option<Timestamp>,
    /// Everything to report.
    pub flags: Vec<Flag>,
}

/// What came of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollOutcome {
    /// It brought the keys that are kept.
    Confirmed,
    /// It brought other keys, which are kept now.
    Updated,
    /// It brought nothing that is taken; what is kept stays.
    Refused(Refusal),
    /// It began before the endpoint or the bundle was changed by the TrustDomain. It counts for nothing and is repeated.
    Outdated,
}

impl PollOutcome {
    /// For a metric.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Updated => "updated",
            Self::Refused(refusal) => refusal.label(),
            Self::Outdated => "outdated",
        }
    }
}

/// Decides at `now` what is kept of `remote`: first by what its TrustDomain says, then by what a poll brought, if one ended.
/// `jitter` in [0, 1) spreads the next poll. Whatever is refused leaves what is kept as it is.
pub fn decide(remote: &Remote<'_>, observation: Option<&Observation>, now: Timestamp, jitter: f64) -> Decision {
    let empty = StoredRemote::empty(remote.spec.trust_domain());
    let previous = remote.record().unwrap_or(&empty);
    let mut stored = previous.clone();
    let mut poll = None;
    if !remote.is_own() {
        stored.limit_times(now);
        stored.follow_endpoint(remote.spec.endpoint(), now);
        stored.take_bootstrap(remote.spec, now);
        poll = observation.map(|observation| stored.take_poll(remote.spec, observation, now, jitter));
        // The poll may have brought what the TrustDomain was changed to.
        stored.take_bootstrap(remote.spec, now);
    }
    let is_replaced = matches!(remote.stored, Stored::Unreadable(_)) && !remote.is_own();
    let after = Remote { stored: Stored::Read(&stored), ..*remote };
    let unreadable = match remote.stored {
        Stored::Unreadable(error) => Some(Flag::StoredUnreadable(error.clone())),
        Stored::Absent | Stored::Read(_) => None,
    };
    Decision {
        is_changed: is_replaced || stored != *previous,
        poll,
        next_poll: poll_target(&after, now).and(stored.next_poll),
        next_change: after.next_change(now),
        flags: unreadable.into_iter().chain(after.flags(now)).collect(),
        stored,
    }
}

/// What becomes of the document in the TrustDomain.
pub(super) enum Verdict<'a> {
    /// There is none.
    Absent,
    /// It was taken before.
    Taken { replace: bool },
    /// It cannot be used.
    Refused(Refusal),
    /// It was changed, and is not newer than what was accepted.
    NotNewer { offered: Option<u64>, highest: Option<u64> },
    /// It was changed to the keys that are kept already.
    Known(&'a Bootstrap),
    /// It is to be kept.
    Take(&'a Bootstrap, &'a Candidate),
}

impl<'a> Verdict<'a> {
    /// A document that was changed takes effect with a higher sequence than any before, or by `replace`: reverting a commit
    /// must not restore revoked keys.
    pub(super) fn of(spec: &'a RemoteSpec, stored: &StoredRemote) -> Self {
        let Some(bootstrap) = spec.bootstrap() else { return Self::Absent };
        let kept = stored.kept.as_ref();
        let has_kept_keys = |candidate: &Candidate| kept.is_some_and(|kept| candidate.has_keys_of(&kept.bundle));
        if stored.bootstrap == Some(bootstrap.digest) {
            let is_kept = |candidate: &Candidate| {
                kept.is_some_and(|kept| kept.origin == Origin::Bootstrap && kept.sequence == candidate.sequence)
            };
            return match &bootstrap.read {
                // A release that knows more kinds of keys finds more in the same document.
                Ok(candidate) if is_kept(candidate) && !has_kept_keys(candidate) => Self::Take(bootstrap, candidate),
                _ => Self::Taken { replace: bootstrap.replace },
            };
        }
        let candidate = match &bootstrap.read {
            Ok(candidate) => candidate,
            Err(refusal) => return Self::Refused(*refusal),
        };
        let (offered, highest) = (candidate.sequence, stored.highest_sequence);
        if kept.is_none() || bootstrap.replace || offered > highest {
            return Self::Take(bootstrap, candidate);
        }
        if has_kept_keys(candidate) {
            return Self::Known(bootstrap);
        }
        Self::NotNewer { offered, highest }
    }
}

impl StoredRemote {
    /// Times of a clock that was ahead must neither keep a bundle trusted nor put off a poll.
    fn limit_times(&mut self, now: Timestamp) {
        self.polled_at = self.polled_at.map(|at| at.min(now));
        self.next_poll = self.next_poll.map(|at| at.min(plus(now, LONGEST_INTERVAL)));
        if let Some(kept) = &mut self.kept {
            kept.confirmed_at = kept.confirmed_at.min(now);
        }
    }

    /// An endpoint that is new or was changed is polled as soon as may be; what was wrong with the one before is forgotten.
    fn follow_endpoint(&mut self, endpoint: Option<&Endpoint>, now: Timestamp) {
        let digest = endpoint.map(Endpoint::digest);
        if self.endpoint == digest {
            return;
        }
        self.endpoint = digest;
        self.failure = None;
        self.poll_soon(now);
    }

    fn take_bootstrap(&mut self, spec: &RemoteSpec, now: Timestamp) {
        match Verdict::of(spec, self) {
            Verdict::Take(bootstrap, candidate) => {
                self.keep(candidate.clone(), Origin::Bootstrap, now);
                self.bootstrap = Some(bootstrap.digest);
                // What failed with the bundle before may not fail with this one.
                self.failure = None;
                self.poll_soon(now);
            }
            Verdict::Known(bootstrap) => self.bootstrap = Some(bootstrap.digest),
            Verdict::Absent | Verdict::Taken { .. } | Verdict::Refused(_) | Verdict::NotNewer { .. } => {}
        }
    }

    fn take_poll(&mut self, spec: &RemoteSpec, observation: &Observation, now: Timestamp, jitter: f64) -> PollOutcome {
        self.polled_at = Some(now);
        if !observation.target.is_current(spec, self) {
            self.poll_soon(now);
            return PollOutcome::Outdated;
        }
        let outcome = match self.examine(spec, observation) {
            Ok(candidate) => {
                self.failure = None;
                if self.keep(candidate, Origin::Polled, now) { PollOutcome::Updated } else { PollOutcome::Confirmed }
            }
            Err(refusal) => {
                let (count, since) = self.failure.map_or((0, now), |failure| (failure.count, failure.since));
                self.failure = Some(Failure { refusal, count: count.saturating_add(1), since, at: now });
                PollOutcome::Refused(refusal)
            }
        };
        let failures = self.failure.map_or(0, |failure| failure.count);
        // Who has no bundle yet need not wait for a hint that nobody gave.
        let hint = self.kept.as_ref().map_or(SHORTEST_INTERVAL, |kept| kept.bundle.refresh_hint);
        self.next_poll = Some(plus(now, poll_interval(hint, failures, spec.max_stale(), jitter)));
        outcome
    }

    /// Whether what a poll brought may be kept.
    fn examine(&self, spec: &RemoteSpec, observation: &Observation) -> Result<Candidate, Refusal> {
        let Fetched { document, server_id } = observation.result.as_ref().map_err(|error| Refusal::Fetch(*error))?;
        if let Profile::HttpsSpiffe { id } = &observation.target.endpoint.profile
            && server_id.as_ref() != Some(id)
        {
            return Err(Refusal::Fetch(FetchError::WrongEndpointId));
        }
        let candidate = Candidate::read(observation.target.endpoint.profile.format(), spec.trust_domain(), document)?;
        match (candidate.sequence, self.sequence_floor) {
            // One without a sequence is taken for the newest (SPIFFE Federation, section 4.2).
            (Some(offered), Some(floor)) if offered < floor => Err(Refusal::LowerSequence { offered, floor }),
            _ => Ok(candidate),
        }
    }

    /// Keeps a bundle; whether its keys are other ones than before.
    fn keep(&mut self, candidate: Candidate, origin: Origin, now: Timestamp) -> bool {
        let previous = self.kept.take();
        let same = previous.as_ref().filter(|kept| candidate.has_keys_of(&kept.bundle));
        let is_other = same.is_none();
        let sequence = candidate.sequence;
        let is_repeated = sequence.is_some() && previous.as_ref().is_some_and(|kept| kept.sequence == sequence);
        let is_sequence_reused =
            origin == Origin::Polled && is_repeated && (is_other || same.is_some_and(|kept| kept.is_sequence_reused));
        let mut bundle = candidate.bundle;
        bundle.sequence = match (same, &previous) {
            (Some(kept), _) => kept.bundle.sequence,
            (None, Some(kept)) => succeeding(kept.bundle.sequence, now),
            (None, None) => succeeding(0, now),
        };
        let taken_at = same.map_or(now, |kept| kept.taken_at);
        self.sequence_floor = match origin {
            // It is higher than any before, or it replaces them.
            Origin::Bootstrap => sequence,
            Origin::Polled => self.sequence_floor.max(sequence),
        };
        self.highest_sequence = self.highest_sequence.max(sequence);
        let dropped = candidate.dropped;
        self.kept = Some(Kept { origin, bundle, sequence, is_sequence_reused, dropped, taken_at, confirmed_at: now });
        is_other
    }

    /// As soon as the interval since the last poll allows, if there is anything to poll.
    fn poll_soon(&mut self, now: Timestamp) {
        let soonest = self.polled_at.map_or(now, |at| plus(at, SHORTEST_INTERVAL).max(now));
        self.next_poll = self.endpoint.is_some().then_some(soonest);
    }
}
