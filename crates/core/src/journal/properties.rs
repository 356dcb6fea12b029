//! What must hold of authorities whenever their keeper looks, and however long it stays away.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::Kind;
use super::plan::{Action, AuthorityPolicy, change};
use super::rotation::{MAX_AUTHORITIES, Orders, UNANNOUNCED_NOTICE, active, next_actions, next_change};
use super::slot::{Slot, State, Times};
use crate::key::KeyType;

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

fn policy() -> impl Strategy<Value = AuthorityPolicy> {
    (10_u64..7_200, 1_u64..600, 100_u64..400, 0_u64..3_600).prop_map(|(longest, hint, percent, delay)| {
        AuthorityPolicy {
            ca_life: Duration::from_secs((2 * (longest + 3 * hint) + delay) * percent / 100),
            max_delay: Duration::from_secs(delay),
            taint_max_delay: Duration::from_secs(600),
            longest_svid_life: Duration::from_secs(longest),
            refresh_hint: Duration::from_secs(hint),
            x509_key_type: KeyType::EcP256,
            jwt_key_type: KeyType::EcP256,
            wit_key_type: None,
        }
    })
}

/// Visits of the keeper: fractions of a life from one to the next.
fn visits(longest: f64) -> impl Strategy<Value = Vec<f64>> {
    vec(0.0..longest, 1..25)
}

#[derive(Default)]
struct Run {
    slots: Vec<Slot<()>>,
    /// Every slot there ever was, as it was last.
    all: Vec<Slot<()>>,
    unannounced: Vec<String>,
    /// Tainted or revoked.
    distrusted: Vec<String>,
    made: usize,
    now: u64,
}

impl Run {
    fn visit(&mut self, policy: &AuthorityPolicy) {
        self.visit_with(policy, &Orders::default());
    }

    fn visit_with(&mut self, policy: &AuthorityPolicy, orders: &Orders) {
        let actions = next_actions(Kind::X509, &self.slots, policy, orders, at(self.now));
        for action in &actions {
            match action {
                Action::Prepare { times, unannounced } => {
                    self.made += 1;
                    let id = self.made.to_string();
                    self.unannounced.extend(unannounced.then(|| id.clone()));
                    self.slots.push(Slot { id, times: *times, tainted_at: None, authority: () });
                }
                other => change(&mut self.slots, other),
            }
            match action {
                Action::ActivateAt { slot, .. } => self.unannounced.push(slot.clone()),
                Action::Taint { slot, .. } | Action::Revoke { slot } => self.distrusted.push(slot.clone()),
                _ => {}
            }
        }
        for slot in &self.slots {
            match self.all.iter_mut().find(|known| known.id == slot.id) {
                Some(known) => known.times = slot.times,
                None => self.all.push(slot.clone()),
            }
        }
    }

    fn active_count(&self, now: Timestamp) -> usize {
        self.slots.iter().filter(|slot| slot.state(now) == State::Active).count()
    }

    /// The moments at which something switches in (now, until], those just before, and the end.
    fn moments(&self, until: u64) -> Vec<Timestamp> {
        let switches =
            self.slots.iter().flat_map(|slot| [slot.times.activate_at, slot.times.retire_at, slot.times.remove_at]);
        let just_before = |time: Timestamp| time - SignedDuration::from_nanos(1);
        let around = switches.flat_map(|time| [just_before(time), time]).chain([at(self.now), at(until)]);
        around.filter(|time| *time >= at(self.now) && *time <= at(until)).collect()
    }
}

proptest! {
    // The keeper comes at least every L/2 − 3 × hint: then nothing is ever in haste, and no moment is without authority.
    #[test]
    fn a_keeper_that_comes_in_time_never_leaves_a_moment_without_exactly_one_active(policy in policy(), visits in visits(1.0)) {
        let mut run = Run::default();
        run.visit(&policy);
        let longest_gap = policy.life().as_secs() / 2 - policy.time_to_learn().as_secs();
        for fraction in visits {
            let next = run.now + (longest_gap as f64 * fraction) as u64;
            for moment in run.moments(next) {
                prop_assert_eq!(run.active_count(moment), 1, "at {}", moment);
            }
            run.now = next;
            run.visit(&policy);
        }
        prop_assert_eq!(run.unannounced, Vec::<String>::new());
    }

    // However long the keeper stays away: never two, and exactly one as soon as it has been.
    #[test]
    fn there_are_never_two_active_and_one_after_every_visit(policy in policy(), visits in visits(3.0)) {
        let mut run = Run::default();
        run.visit(&policy);
        for fraction in visits {
            prop_assert_eq!(run.active_count(at(run.now)), 1);
            let next = run.now + (policy.life().as_secs_f64() * fraction) as u64;
            for moment in run.moments(next) {
                prop_assert!(run.active_count(moment) <= 1, "at {}", moment);
            }
            run.now = next;
            run.visit(&policy);
        }
        prop_assert_eq!(run.active_count(at(run.now)), 1);
    }

    #[test]
    fn no_key_signs_before_it_could_be_learnt_except_the_first_and_those_in_haste(policy in policy(), visits in visits(3.0)) {
        let mut run = Run::default();
        run.visit(&policy);
        for fraction in visits {
            run.now += (policy.life().as_secs_f64() * fraction) as u64;
            run.visit(&policy);
        }
        for (index, slot) in run.all.iter().enumerate().skip(1) {
            let known_for = slot.times.activate_at.duration_since(slot.times.prepared_at);
            let learnt = known_for >= SignedDuration::try_from(policy.time_to_learn()).unwrap();
            prop_assert!(learnt || run.unannounced.contains(&slot.id));
            if !learnt {
                // Only where waiting would have left no authority.
                let predecessor_end = run.all[index - 1].times.remove_at;
                prop_assert!(slot.times.activate_at >= predecessor_end);
            }
        }
    }

    // The bundle holds the signer of everything that has not expired.
    #[test]
    fn the_bundle_holds_the_signer_of_every_unexpired_svid(policy in policy(), visits in visits(1.2), ttl in 0.0_f64..=1.0) {
        let mut run = Run::default();
        run.visit(&policy);
        let mut signed: Vec<(String, Timestamp)> = Vec::new();
        for fraction in visits {
            let next = run.now + (policy.life().as_secs_f64() * fraction) as u64;
            for moment in run.moments(next) {
                for (signer, expires) in &signed {
                    let in_bundle = run.slots.iter().any(|slot| slot.id == *signer && slot.is_in_bundle(moment));
                    prop_assert!(in_bundle || *expires <= moment, "{} expires {} at {}", signer, expires, moment);
                }
                if let Some(active) = active(&run.slots, moment) {
                    let life = policy.longest_svid_life.mul_f64(ttl).min(active.time_left(moment));
                    signed.push((active.id.clone(), moment + SignedDuration::try_from(life).unwrap()));
                }
            }
            run.now = next;
            run.visit(&policy);
        }
    }

    // A keeper in time never makes anything live shorter than asked.
    #[test]
    fn what_is_signed_lives_as_long_as_asked(policy in policy(), visits in visits(1.0)) {
        let mut run = Run::default();
        run.visit(&policy);
        let spare = policy.life().as_secs() / 2 - policy.time_to_learn().as_secs() - policy.longest_svid_life.as_secs();
        for fraction in visits {
            let next = run.now + (spare as f64 * fraction) as u64;
            for moment in run.moments(next) {
                let active = active(&run.slots, moment).unwrap();
                prop_assert!(active.time_left(moment) >= policy.longest_svid_life);
            }
            run.now = next;
            run.visit(&policy);
        }
    }

    #[test]
    fn a_visit_twice_changes_nothing_and_the_next_change_is_in_the_future(policy in policy(), visits in visits(3.0)) {
        let mut run = Run::default();
        for fraction in visits {
            run.now += (policy.life().as_secs_f64() * fraction) as u64;
            // A successor that took over in haste may be due for one of its own.
            run.visit(&policy);
            run.visit(&policy);
            let before = run.slots.clone();
            run.visit(&policy);
            prop_assert_eq!(&before, &run.slots);
            let change = next_change(&run.slots, &policy, None, at(run.now)).unwrap();
            prop_assert!(change > at(run.now));
            // Nothing is due before it.
            prop_assert_eq!(next_actions(Kind::X509, &run.slots, &policy, &Orders::default(), change - SignedDuration::from_nanos(1)), []);
        }
    }

    #[test]
    fn the_times_of_a_slot_are_in_order(policy in policy(), visits in visits(3.0)) {
        let mut run = Run::default();
        for fraction in visits {
            run.now += (policy.life().as_secs_f64() * fraction) as u64;
            run.visit(&policy);
            for slot in &run.all {
                let Times { prepared_at, activate_at, retire_at, remove_at } = slot.times;
                prop_assert!(prepared_at <= activate_at && activate_at < retire_at && retire_at <= remove_at, "{:?}", slot.times);
            }
        }
    }

    // Whatever owners ask for and agents report: never two, one within the notice after every visit, and no more than fit.
    #[test]
    fn whatever_is_asked_for_one_signs_and_never_two(policy in policy(), visits in requests()) {
        let mut run = Run::default();
        run.visit(&policy);
        for (fraction, request) in visits {
            let next = run.now + (policy.life().as_secs_f64() * fraction) as u64;
            for moment in run.moments(next) {
                prop_assert!(run.active_count(moment) <= 1, "at {}", moment);
            }
            run.now = next;
            run.visit_with(&policy, &request.orders(&run));
            let soon = at(run.now + UNANNOUNCED_NOTICE.as_secs());
            prop_assert_eq!(run.active_count(soon), 1, "{:?}", run.slots);
            prop_assert!(run.slots.len() <= MAX_AUTHORITIES + 3, "{:?}", run.slots);
        }
    }

    #[test]
    fn whatever_is_asked_for_no_key_signs_before_it_could_be_learnt_unless_others_were_distrusted(policy in policy(), visits in requests()) {
        let mut run = Run::default();
        run.visit(&policy);
        for (fraction, request) in visits {
            run.now += (policy.life().as_secs_f64() * fraction) as u64;
            run.visit_with(&policy, &request.orders(&run));
        }
        for slot in run.all.iter().skip(1).filter(|slot| !run.distrusted.contains(&slot.id)) {
            let known_for = slot.times.activate_at.duration_since(slot.times.prepared_at);
            let learnt = known_for >= SignedDuration::try_from(policy.time_to_learn()).unwrap();
            prop_assert!(learnt || run.unannounced.contains(&slot.id), "{:?}", slot);
        }
    }

    #[test]
    fn whatever_is_asked_for_the_bundle_holds_the_signer_of_every_unexpired_svid_unless_it_is_distrusted(
        policy in policy(), visits in requests()
    ) {
        let mut run = Run::default();
        run.visit(&policy);
        let mut signed: Vec<(String, Timestamp)> = Vec::new();
        for (fraction, request) in visits {
            let next = run.now + (policy.life().as_secs_f64() * fraction) as u64;
            for moment in run.moments(next) {
                for (signer, expires) in signed.iter().filter(|(signer, _)| !run.distrusted.contains(signer)) {
                    let in_bundle = run.slots.iter().any(|slot| slot.id == *signer && slot.is_in_bundle(moment));
                    prop_assert!(in_bundle || *expires <= moment, "{} expires {} at {}", signer, expires, moment);
                }
                if let Some(active) = active(&run.slots, moment) {
                    prop_assert!(!run.distrusted.contains(&active.id), "what is distrusted never signs");
                    let life = policy.longest_svid_life.min(active.time_left(moment));
                    signed.push((active.id.clone(), moment + SignedDuration::try_from(life).unwrap()));
                }
            }
            run.now = next;
            run.visit_with(&policy, &request.orders(&run));
        }
    }

    // GitOps asks for the same again and again.
    #[test]
    fn the_same_request_again_changes_nothing(policy in policy(), visits in requests()) {
        let mut run = Run::default();
        run.visit(&policy);
        for (fraction, request) in visits {
            run.now += (policy.life().as_secs_f64() * fraction) as u64;
            let orders = request.orders(&run);
            // A successor that took over in haste may be due for one of its own.
            run.visit_with(&policy, &orders);
            run.visit_with(&policy, &orders);
            let before = run.slots.clone();
            run.visit_with(&policy, &orders);
            prop_assert_eq!(&before, &run.slots);
        }
    }
}

/// What is asked for, and reported, at a visit.
#[derive(Clone, Debug)]
struct Request {
    acknowledged: bool,
    rotate: bool,
    /// Which of the slots are tainted and revoked, one bit each.
    tainted: u8,
    revoked: u8,
    replaced: bool,
}

impl Request {
    fn orders(&self, run: &Run) -> Orders {
        let chosen = |bits: u8| {
            let slots = run.slots.iter().enumerate().filter(|(index, _)| bits & (1 << (index % 8)) != 0);
            slots.map(|(_, slot)| slot.id.clone()).collect()
        };
        Orders {
            after: self.rotate.then(|| at(run.now)),
            tainted: chosen(self.tainted),
            revoked: chosen(self.revoked),
            acknowledged: self.acknowledged,
            replaced: if self.replaced { chosen(u8::MAX) } else { Default::default() },
        }
    }
}

fn requests() -> impl Strategy<Value = Vec<(f64, Request)>> {
    let rarely = || prop_oneof![3 => Just(0_u8), 1 => any::<u8>()];
    let request = (any::<bool>(), any::<bool>(), rarely(), rarely(), any::<bool>());
    let request = request.prop_map(|(acknowledged, rotate, tainted, revoked, replaced)| Request {
        acknowledged,
        rotate,
        tainted,
        revoked,
        replaced,
    });
    vec((0.0..1.2, request), 1..25)
}
