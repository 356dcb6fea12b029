//! What to do next about the authorities of a kind: prepare a successor in time, let it take over, remove what has ended.
//! Pure: the journal and a time in, steps out.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Kind;
use super::slot::{Slot, State, Times};
use crate::key::KeyType;

/// How authorities are made and how long they serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorityPolicy {
    /// How long an authority lives, from preparation to end.
    pub ca_life: Duration,
    /// The longest life of anything it signs.
    pub longest_svid_life: Duration,
    /// How often relying parties look for a new bundle.
    pub refresh_hint: Duration,
    /// Keys of X.509 authorities.
    pub x509_key_type: KeyType,
    /// Keys of JWT authorities.
    pub jwt_key_type: KeyType,
}

impl AuthorityPolicy {
    /// The life given to new authorities: `ca_life`, but never less than 2 × (longest SVID life + 3 × hint), below which
    /// a successor could not be known everywhere before it signs (the rule that the CRD states). Whole seconds.
    pub fn life(&self) -> Duration {
        let least = (self.longest_svid_life + self.time_to_learn()) * 2;
        Duration::from_secs(self.ca_life.max(least).as_secs())
    }

    /// The type of the keys of a kind's authorities.
    pub const fn key_type(&self, kind: Kind) -> KeyType {
        match kind {
            Kind::X509 => self.x509_key_type,
            Kind::Jwt => self.jwt_key_type,
        }
    }

    /// How long before it signs a key is in the bundle, so that every relying party has polled: 3 × hint (SPIFFE
    /// Federation, 5.2.1, asks for 3 to 5). Whole seconds, rounded up.
    pub fn time_to_learn(&self) -> Duration {
        Duration::from_secs((self.refresh_hint * 3).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
    }
}

/// What to change in a journal; empty when nothing is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which to apply them.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// One change to the slots of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of which kind.
    pub kind: Kind,
    /// What.
    pub action: Action,
}

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a key and put it into the bundle.
    Prepare {
        /// The life of its slot.
        times: Times,
        /// It will sign before every relying party can have learnt it, since nobody prepared it in time and there would
        /// be no authority otherwise. Worth an event.
        unannounced: bool,
    },
    /// Let the active slot sign until then: its successor's activation.
    RetireAt {
        /// The slot's id.
        slot: String,
        /// When it retires.
        at: Timestamp,
    },
    /// Let a prepared slot sign at once, since no other does. Worth an event.
    ActivateAt {
        /// The slot's id.
        slot: String,
        /// Now.
        at: Timestamp,
    },
    /// Drop a slot, and its key, whose end has come.
    Remove {
        /// The slot's id.
        slot: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        match &self.action {
            Action::Prepare { times, unannounced: false } => {
                write!(f, "prepare a {kind} authority which signs from {}", times.activate_at)
            }
            Action::Prepare { times, unannounced: true } => write!(
                f,
                "prepare a {kind} authority in haste: none was prepared in time, so it signs from {}, before every relying party has learnt it",
                times.activate_at
            ),
            Action::RetireAt { slot, at } => write!(f, "retire {kind} authority {slot} at {at}"),
            Action::ActivateAt { slot, at } => {
                write!(f, "activate {kind} authority {slot} at {at}, since no other signs")
            }
            Action::Remove { slot } => write!(f, "remove {kind} authority {slot}, whose end has come"),
        }
    }
}

/// The slot that signs at `now`.
pub(super) fn active<A>(slots: &[Slot<A>], now: Timestamp) -> Option<&Slot<A>> {
    slots.iter().find(|slot| slot.state(now) == State::Active)
}

/// What is due at `now` for the slots of one kind.
pub(super) fn next_actions<A>(slots: &[Slot<A>], policy: &AuthorityPolicy, now: Timestamp) -> Vec<Action> {
    let gone = slots.iter().filter(|slot| slot.state(now) == State::Gone);
    let mut actions: Vec<Action> = gone.map(|slot| Action::Remove { slot: slot.id.clone() }).collect();
    let successor = prepared(slots, now);
    match (active(slots, now), successor) {
        (Some(_), Some(_)) => {}
        (Some(active), None) if now >= successor_due(active, policy) => actions.extend(succeed(active, policy, now)),
        (Some(_), None) => {}
        (None, Some(successor)) if whole(now) >= successor.times.prepared_at => {
            actions.push(Action::ActivateAt { slot: successor.id.clone(), at: whole(now) });
        }
        // Made in the future of a clock that is behind: it will sign when that has caught up.
        (None, Some(_)) => {}
        (None, None) => {
            let times = times(whole(now), whole(now), policy);
            actions.push(Action::Prepare { times, unannounced: !slots.is_empty() });
        }
    }
    actions
}

/// The next moment after `now` at which a state changes or something is due.
pub(super) fn next_change<A>(slots: &[Slot<A>], policy: &AuthorityPolicy, now: Timestamp) -> Option<Timestamp> {
    let due = active(slots, now).filter(|_| prepared(slots, now).is_none()).map(|active| successor_due(active, policy));
    let switches = slots.iter().flat_map(|slot| [slot.times.activate_at, slot.times.retire_at, slot.times.remove_at]);
    switches.chain(due).filter(|at| *at > now).min()
}

/// Changes `slots` as an action says that makes no authority.
pub(super) fn change<A>(slots: &mut Vec<Slot<A>>, action: &Action) {
    match action {
        Action::Prepare { .. } => {}
        Action::RetireAt { slot, at } => find(slots, slot).for_each(|slot| slot.times.retire_at = *at),
        Action::ActivateAt { slot, at } => find(slots, slot).for_each(|slot| slot.times.activate_at = *at),
        Action::Remove { slot } => slots.retain(|other| other.id != *slot),
    }
}

fn find<'a, A>(slots: &'a mut [Slot<A>], id: &'a str) -> impl Iterator<Item = &'a mut Slot<A>> {
    slots.iter_mut().filter(move |slot| slot.id == id)
}

/// The prepared slot that comes next.
fn prepared<A>(slots: &[Slot<A>], now: Timestamp) -> Option<&Slot<A>> {
    slots.iter().filter(|slot| slot.state(now) == State::Prepared).min_by_key(|slot| slot.times.activate_at)
}

/// At half of its life; of the policy's, where that has become shorter.
fn successor_due<A>(active: &Slot<A>, policy: &AuthorityPolicy) -> Timestamp {
    let life = active.times.remove_at.duration_since(active.times.prepared_at);
    plus(active.times.prepared_at, life.min(signed(policy.life())) / 2)
}

/// The successor signs once everyone can know it, and what its predecessor signed last expires by that one's end.
fn succeed<A>(active: &Slot<A>, policy: &AuthorityPolicy, now: Timestamp) -> [Action; 2] {
    let now = whole(now);
    let end = active.times.remove_at;
    let expected_end = end.min(plus(active.times.prepared_at, signed(policy.life())));
    let planned = plus(expected_end, -signed(policy.longest_svid_life));
    let known = plus(now, signed(policy.time_to_learn()));
    let activate_at = whole(planned).max(known).min(end);
    [
        Action::RetireAt { slot: active.id.clone(), at: activate_at },
        Action::Prepare { times: times(now, activate_at, policy), unannounced: activate_at < known },
    ]
}

fn times(prepared_at: Timestamp, activate_at: Timestamp, policy: &AuthorityPolicy) -> Times {
    let end = plus(prepared_at, signed(policy.life()));
    Times { prepared_at, activate_at, retire_at: end, remove_at: end }
}

/// Certificates know whole seconds only.
fn whole(time: Timestamp) -> Timestamp {
    let floor = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    Timestamp::from_second(floor).unwrap_or(time)
}

fn plus(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.saturating_add(span).unwrap_or(time)
}

fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// CA 24 h, SVID 1 h, hint 5 min.
    fn policy() -> AuthorityPolicy {
        AuthorityPolicy {
            ca_life: Duration::from_secs(86_400),
            longest_svid_life: Duration::from_secs(3_600),
            refresh_hint: Duration::from_secs(300),
            x509_key_type: KeyType::EcP256,
            jwt_key_type: KeyType::EcP256,
        }
    }

    fn advance(slots: Vec<Slot<()>>, policy: &AuthorityPolicy, now: Timestamp) -> Vec<Slot<()>> {
        let mut slots = slots;
        for action in next_actions(&slots, policy, now) {
            if let Action::Prepare { times, .. } = action {
                let id = format!("from {}", times.prepared_at.as_second());
                slots.push(Slot { id, times, tainted_at: None, authority: () });
            } else {
                change(&mut slots, &action);
            }
        }
        slots
    }

    fn states(slots: &[Slot<()>], now: i64) -> Vec<State> {
        slots.iter().map(|slot| slot.state(at(now))).collect()
    }

    #[test]
    fn a_step_says_what_it_does_to_which_authority() {
        let times = Times { prepared_at: at(0), activate_at: at(60), retire_at: at(120), remove_at: at(180) };
        let slot = || "0ff2".to_owned();
        let said = |kind, action| Step { kind, action }.to_string();
        let from = at(60).to_string();
        let prepared = said(Kind::X509, Action::Prepare { times, unannounced: false });
        assert_eq!(prepared, format!("prepare a X.509 authority which signs from {from}"));
        let unannounced = said(Kind::Jwt, Action::Prepare { times, unannounced: true });
        assert!(
            unannounced.starts_with("prepare a JWT authority in haste") && unannounced.contains(&from),
            "{unannounced}"
        );
        assert_eq!(
            said(Kind::Jwt, Action::RetireAt { slot: slot(), at: at(60) }),
            format!("retire JWT authority 0ff2 at {from}")
        );
        let activated = said(Kind::X509, Action::ActivateAt { slot: slot(), at: at(60) });
        assert_eq!(activated, format!("activate X.509 authority 0ff2 at {from}, since no other signs"));
        let removed = said(Kind::X509, Action::Remove { slot: slot() });
        assert_eq!(removed, "remove X.509 authority 0ff2, whose end has come");
    }

    #[test]
    fn the_first_authority_signs_at_once() {
        let actions = next_actions::<()>(&[], &policy(), at(0));
        let times =
            Times { prepared_at: at(0), activate_at: at(0), retire_at: at(24 * HOUR), remove_at: at(24 * HOUR) };
        assert_eq!(actions, [Action::Prepare { times, unannounced: false }]);
    }

    #[test]
    fn a_life_is_prepared_activated_retired_and_removed() {
        let policy = policy();
        let slots = advance(Vec::new(), &policy, at(0));
        assert_eq!(next_change(&slots, &policy, at(0)), Some(at(12 * HOUR)));
        assert_eq!(next_actions(&slots, &policy, at(12 * HOUR - 1)), []);

        let slots = advance(slots, &policy, at(12 * HOUR));
        assert_eq!(states(&slots, 12 * HOUR), [State::Active, State::Prepared]);
        assert_eq!(next_actions(&slots, &policy, at(22 * HOUR)), []);
        assert_eq!(next_change(&slots, &policy, at(12 * HOUR)), Some(at(23 * HOUR)));
        assert_eq!(states(&slots, 23 * HOUR - 1), [State::Active, State::Prepared]);
        assert_eq!(states(&slots, 23 * HOUR), [State::Retiring, State::Active]);
        assert_eq!(states(&slots, 24 * HOUR), [State::Gone, State::Active]);

        assert_eq!(
            next_actions(&slots, &policy, at(24 * HOUR)).first(),
            Some(&Action::Remove { slot: "from 0".into() })
        );
        let slots = advance(slots, &policy, at(24 * HOUR));
        assert_eq!(states(&slots, 24 * HOUR), [State::Active, State::Prepared]);
        assert_eq!(slots[0].id, format!("from {}", 12 * HOUR));
    }

    #[test]
    fn a_late_successor_still_waits_until_it_can_be_known() {
        let slots = advance(Vec::new(), &policy(), at(0));
        let late = 23 * HOUR + 1_800;
        let slots = advance(slots, &policy(), at(late));
        assert_eq!(slots[1].times.activate_at, at(late + 900));
        assert_eq!(slots[0].times.retire_at, at(late + 900));
    }

    #[test]
    fn with_no_time_to_learn_left_it_takes_over_at_the_end_and_in_haste() {
        let slots = advance(Vec::new(), &policy(), at(0));
        let actions = next_actions(&slots, &policy(), at(24 * HOUR - 60));
        assert!(
            matches!(actions.last(), Some(Action::Prepare { times, unannounced: true }) if times.activate_at == at(24 * HOUR))
        );
        let actions = next_actions(&slots, &policy(), at(30 * HOUR));
        let [Action::Remove { .. }, Action::Prepare { times, unannounced: true }] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        assert_eq!(times.activate_at, at(30 * HOUR));
    }

    #[test]
    fn when_the_active_one_is_tainted_the_prepared_one_signs_at_once() {
        let mut slots = advance(advance(Vec::new(), &policy(), at(0)), &policy(), at(12 * HOUR));
        slots[0].tainted_at = Some(at(13 * HOUR));
        let now = at(13 * HOUR);
        assert_eq!(next_actions(&slots, &policy(), now), [Action::ActivateAt { slot: slots[1].id.clone(), at: now }]);
        let slots = advance(slots, &policy(), now);
        assert_eq!(states(&slots, 13 * HOUR), [State::Tainted, State::Active]);
    }

    #[test]
    fn a_clock_behind_waits_for_the_first_authority() {
        let slots = advance(Vec::new(), &policy(), at(100));
        assert_eq!(next_actions(&slots, &policy(), at(99)), []);
        assert_eq!(next_change(&slots, &policy(), at(99)), Some(at(100)));
    }

    #[test]
    fn a_shortened_life_brings_the_successor_forward() {
        let long = AuthorityPolicy { ca_life: Duration::from_secs(10 * 365 * 86_400), ..policy() };
        let slots = advance(Vec::new(), &long, at(0));
        assert_eq!(next_actions(&slots, &long, at(48 * HOUR)), []);
        let slots = advance(slots, &policy(), at(48 * HOUR));
        assert_eq!(slots[1].times.activate_at, at(48 * HOUR + 900));
    }

    #[test]
    fn a_life_too_short_for_a_switch_is_lengthened() {
        let short = AuthorityPolicy { ca_life: Duration::from_secs(60), ..policy() };
        assert_eq!(short.life(), Duration::from_secs(2 * (3_600 + 900)));
        assert_eq!(policy().life(), Duration::from_secs(86_400));
    }

    #[test]
    fn times_are_whole_seconds() {
        for (nanosecond, second) in [(1_500_000_000, 1), (-1_500_000_000, -2), (2_000_000_000, 2)] {
            assert_eq!(whole(Timestamp::from_nanosecond(nanosecond).unwrap()), at(second));
        }
    }
}
