//! The life of authorities step by step.

use super::*;
use crate::journal::plan::Step;
use crate::journal::tests::policy;

const HOUR: i64 = 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn no_orders() -> Orders {
    Orders::default()
}

fn acknowledged() -> Orders {
    Orders { acknowledged: true, ..Orders::default() }
}

fn rotate_after(second: i64) -> Orders {
    Orders { after: Some(at(second)), ..Orders::default() }
}

fn tainted(slots: &[Slot<()>]) -> Orders {
    Orders { tainted: slots.iter().map(|slot| slot.id.clone()).collect(), ..Orders::default() }
}

fn revoked(slots: &[Slot<()>]) -> Orders {
    Orders { revoked: slots.iter().map(|slot| slot.id.clone()).collect(), ..Orders::default() }
}

fn actions(slots: &[Slot<()>], orders: &Orders, now: i64) -> Vec<Action> {
    next_actions(Kind::X509, slots, &policy(), orders, at(now))
}

fn applied(kind: Kind, mut slots: Vec<Slot<()>>, policy: &AuthorityPolicy, orders: &Orders, now: i64) -> Vec<Slot<()>> {
    for action in next_actions(kind, &slots, policy, orders, at(now)) {
        if let Action::Prepare { times, .. } = action {
            let id = format!("{} from {}", slots.len(), times.prepared_at.as_second());
            slots.push(Slot { id, times, tainted_at: None, authority: () });
        } else {
            change(&mut slots, &action);
        }
    }
    slots
}

fn advance(slots: Vec<Slot<()>>, orders: &Orders, now: i64) -> Vec<Slot<()>> {
    applied(Kind::X509, slots, &policy(), orders, now)
}

/// One that signs and its spare, from the first second on.
fn first() -> Vec<Slot<()>> {
    advance(Vec::new(), &no_orders(), 0)
}

fn states(slots: &[Slot<()>], now: i64) -> Vec<State> {
    slots.iter().map(|slot| slot.state(at(now))).collect()
}

fn activation(slots: &[Slot<()>], index: usize) -> i64 {
    slots[index].times.activate_at.as_second()
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
    assert_eq!(removed, "remove X.509 authority 0ff2");
    let reason = SwitchReason::Acknowledged;
    let switched = said(Kind::Jwt, Action::SwitchAt { from: slot(), to: "1ff3".to_owned(), at: at(60), reason });
    assert_eq!(
        switched,
        format!("switch from JWT authority 0ff2 to 1ff3 at {from}, since everyone has acknowledged it")
    );
    let tainted = said(Kind::X509, Action::Taint { slot: slot(), at: at(0), remove_at: at(60) });
    assert_eq!(tainted, format!("taint X.509 authority 0ff2, which leaves the bundle at {from} at the latest"));
    let revoked = said(Kind::X509, Action::Revoke { slot: slot() });
    assert_eq!(revoked, "revoke X.509 authority 0ff2: it leaves the bundle at once");
}

#[test]
fn the_first_authority_signs_at_once_and_a_spare_exists_from_the_first_day() {
    let switch = 23 * HOUR;
    let times = |activate_at, retire_at, remove_at| Times {
        prepared_at: at(0),
        activate_at: at(activate_at),
        retire_at: at(retire_at),
        remove_at: at(remove_at),
    };
    let signer = Action::Prepare { times: times(0, switch, 24 * HOUR), unannounced: false };
    let end = switch + 24 * HOUR;
    let spare = Action::Prepare { times: times(switch, end, end), unannounced: false };
    assert_eq!(actions(&[], &no_orders(), 0), [signer, spare]);
}

#[test]
fn a_spare_takes_over_at_its_latest_time_and_the_next_is_prepared() {
    let slots = first();
    assert_eq!(actions(&slots, &no_orders(), 23 * HOUR - 1), []);
    assert_eq!(states(&slots, 23 * HOUR - 1), [State::Active, State::Prepared]);
    assert_eq!(states(&slots, 23 * HOUR), [State::Retiring, State::Active]);
    let slots = advance(slots, &no_orders(), 23 * HOUR);
    assert_eq!(states(&slots, 23 * HOUR), [State::Retiring, State::Active, State::Prepared]);
    assert_eq!(activation(&slots, 2), 46 * HOUR, "its predecessor's life counts from its own activation");
    assert_eq!(states(&slots, 24 * HOUR), [State::Gone, State::Active, State::Prepared]);
    let slots = advance(slots, &no_orders(), 24 * HOUR);
    assert_eq!(states(&slots, 24 * HOUR), [State::Active, State::Prepared]);
}

// The window is [end - longest life - delay, end - longest life].
#[test]
fn acknowledgements_let_a_spare_take_over_earlier_and_only_within_the_window() {
    let (slots, opens) = (first(), 23 * HOUR - 1_800);
    assert_eq!(next_change(&slots, &policy(), None, at(0)), Some(at(opens)));
    assert_eq!(actions(&slots, &acknowledged(), opens - 1), []);
    let slots = advance(slots, &acknowledged(), opens);
    assert_eq!(activation(&slots, 1), opens + 30);
    assert_eq!(slots[0].times.retire_at, at(opens + 30));
    assert_eq!(actions(&slots, &acknowledged(), opens + 10), [], "it is decided once");
    assert_eq!(slots[1].times.remove_at, at(47 * HOUR), "its life counts from its latest activation");
}

#[test]
fn without_acknowledgements_nothing_is_earlier_and_nothing_waits_beyond_the_bound() {
    let slots = first();
    assert_eq!(actions(&slots, &no_orders(), 23 * HOUR - 900), []);
    assert_eq!(actions(&slots, &acknowledged(), 23 * HOUR - 20), [], "too late to be worth it");
    assert_eq!(states(&slots, 23 * HOUR), [State::Retiring, State::Active]);
}

#[test]
fn a_late_successor_still_waits_until_it_can_be_known() {
    let late = 23 * HOUR + 1_800;
    // As the release before left it: nothing was prepared.
    let mut alone = first()[..1].to_vec();
    alone[0].times.retire_at = alone[0].times.remove_at;
    let slots = advance(alone, &no_orders(), late);
    assert_eq!(activation(&slots, 1), late + 900);
    assert_eq!(slots[0].times.retire_at, at(late + 900));
    assert_eq!(actions(&slots, &acknowledged(), late + 60), [], "also when everyone has acknowledged it");
}

#[test]
fn with_no_time_to_learn_left_it_takes_over_at_the_end_and_in_haste() {
    let mut alone = first()[..1].to_vec();
    alone[0].times.retire_at = alone[0].times.remove_at;
    let due = actions(&alone, &no_orders(), 24 * HOUR - 60);
    let Some(Action::Prepare { times, unannounced: true }) = due.last() else { panic!("{due:?}") };
    assert_eq!(times.activate_at, at(24 * HOUR));
    let due = actions(&alone, &no_orders(), 30 * HOUR);
    let [Action::Remove { .. }, Action::Prepare { times, unannounced: true }, Action::Prepare { .. }] = due.as_slice()
    else {
        panic!("{due:?}")
    };
    assert_eq!(times.activate_at, at(30 * HOUR));
}

#[test]
fn a_requested_rotation_replaces_everything_prepared_before_once() {
    let slots = advance(first(), &rotate_after(2 * HOUR), 2 * HOUR - 1);
    assert_eq!(slots, first(), "a request for the future waits");
    assert_eq!(next_change(&slots, &policy(), Some(at(2 * HOUR)), at(HOUR)), Some(at(2 * HOUR)));
    let slots = advance(slots, &rotate_after(2 * HOUR), 2 * HOUR);
    assert_eq!(states(&slots, 2 * HOUR), [State::Active, State::Prepared]);
    assert_eq!(slots[1].times.prepared_at, at(2 * HOUR), "the spare is replaced, too");
    assert_eq!(activation(&slots, 1), 2 * HOUR + 900 + 1_800, "at the latest");
    assert_eq!(actions(&slots, &rotate_after(2 * HOUR), 2 * HOUR + 60), [], "it is asked for again, and done once");

    let known = 2 * HOUR + 900;
    assert_eq!(
        actions(&slots, &Orders { acknowledged: true, ..rotate_after(2 * HOUR) }, known - 1),
        [],
        "those who poll have to learn it, too"
    );
    let slots = advance(slots, &Orders { acknowledged: true, ..rotate_after(2 * HOUR) }, known);
    assert_eq!(activation(&slots, 1), known + 30);
    let slots = advance(slots, &rotate_after(2 * HOUR), known + 30);
    assert_eq!(states(&slots, known + 30), [State::Retiring, State::Active, State::Prepared]);
    assert_eq!(actions(&slots, &rotate_after(2 * HOUR), known + 60), []);
}

#[test]
fn rotations_that_are_requested_again_and_again_do_not_fill_the_bundle() {
    let mut slots = first();
    for now in (0..40 * 3_000).step_by(3_000) {
        slots = advance(slots, &rotate_after(now), now);
        slots = advance(slots, &rotate_after(now), now + 2_700);
        assert!(slots.len() <= MAX_AUTHORITIES + 1, "{}", slots.len());
        assert!(active(&slots, at(now + 2_700)).is_some());
    }
}

#[test]
fn when_the_active_one_is_tainted_the_spare_signs_at_once_and_another_is_prepared() {
    let slots = first();
    let now = 2 * HOUR;
    let orders = tainted(&slots[..1]);
    let slots = advance(slots, &orders, now);
    assert_eq!(states(&slots, now), [State::Tainted, State::Active, State::Prepared]);
    assert_eq!(actions(&slots, &orders, now + 1), [], "it is asked for again, and done once");
    assert_eq!(actions(&slots, &no_orders(), now + 1), [], "removing the request undoes nothing");
    assert_eq!(slots[0].times.remove_at, at(now + 600), "it is cut off at the latest then");
    let all_replaced = Orders { replaced: [slots[0].id.clone()].into(), ..Orders::default() };
    assert_eq!(actions(&slots, &all_replaced, now + 60), [Action::Remove { slot: slots[0].id.clone() }]);
}

#[test]
fn tokens_of_a_tainted_key_verify_until_the_last_has_expired() {
    let slots = applied(Kind::Jwt, Vec::new(), &policy(), &no_orders(), 0);
    let slots = applied(Kind::Jwt, slots.clone(), &policy(), &tainted(&slots[..1]), 2 * HOUR);
    assert_eq!(slots[0].times.remove_at, at(3 * HOUR));
    assert_eq!(states(&slots, 3 * HOUR - 1)[0], State::Tainted);
}

#[test]
fn a_tainted_spare_never_signs_and_is_replaced() {
    let slots = first();
    let due = actions(&slots, &tainted(&slots[1..]), HOUR);
    let [Action::Remove { slot }, Action::Prepare { unannounced: false, .. }] = due.as_slice() else {
        panic!("{due:?}")
    };
    assert_eq!(*slot, slots[1].id);
}

#[test]
fn both_tainted_leave_one_that_signs_as_soon_as_it_may() {
    let slots = first();
    let slots = advance(slots.clone(), &tainted(&slots), HOUR);
    assert_eq!(states(&slots, HOUR), [State::Tainted, State::Prepared, State::Prepared]);
    assert_eq!(states(&slots, HOUR + 5), [State::Tainted, State::Active, State::Prepared]);
}

#[test]
fn a_revoked_authority_is_gone_at_once_and_the_spare_signs() {
    let slots = first();
    let due = actions(&slots, &revoked(&slots[..1]), HOUR);
    assert_eq!(due[0], Action::Revoke { slot: slots[0].id.clone() });
    let slots = advance(slots.clone(), &revoked(&slots[..1]), HOUR);
    assert_eq!(states(&slots, HOUR), [State::Active, State::Prepared]);
}

#[test]
fn when_all_are_revoked_a_new_one_is_pushed_shortly_and_signs_unannounced() {
    let slots = first();
    let orders = revoked(&slots);
    let slots = advance(slots, &orders, HOUR);
    assert_eq!(states(&slots, HOUR), [State::Prepared, State::Prepared]);
    assert_eq!(activation(&slots, 0), HOUR + 5);
    assert_eq!(actions(&slots, &orders, HOUR + 1), [], "it is asked for again, and done once");
    assert_eq!(states(&slots, HOUR + 5), [State::Active, State::Prepared]);
    assert_eq!(actions(&slots, &orders, HOUR + 5), []);
}

/// The leader looks every ten seconds from shortly before `from`. The one that dies at `dies_at` has written what was due
/// then, or not; the next comes when its lease has expired.
fn with_a_leader_that_dies(
    from: i64,
    until: i64,
    dies_at: (i64, bool),
    orders: impl Fn(i64) -> Orders,
) -> Vec<Slot<()>> {
    let (dies_at, has_written) = dies_at;
    let mut slots = first();
    for now in from - 20..until {
        let signing = states(&slots, now).iter().filter(|state| **state == State::Active).count();
        assert_eq!(signing, 1, "at {now} of a leader that died at {dies_at}, written: {has_written}");
        let leads = !(dies_at + 1..dies_at + 40).contains(&now) && (now != dies_at || has_written);
        if leads && now % 10 == 0 {
            slots = advance(slots, &orders(now), now);
        }
    }
    slots
}

// R25
#[test]
fn a_leader_that_dies_at_any_step_of_a_rotation_leaves_it_to_the_next_which_ends_it() {
    let (from, until) = (2 * HOUR, 2 * HOUR + 1_200);
    let orders = |now| match now {
        _ if now < from => no_orders(),
        _ => Orders { acknowledged: now >= from + 1_000, ..rotate_after(from) },
    };
    for dies_at in (from - 20..until).step_by(10).flat_map(|at| [(at, false), (at, true)]) {
        let slots = with_a_leader_that_dies(from, until, dies_at, orders);
        let slots: Vec<_> = slots.iter().filter(|slot| slot.state(at(until)) != State::Gone).collect();
        let [old, signer, spare] = slots.as_slice() else { panic!("{dies_at:?}: {slots:?}") };
        assert_eq!(old.state(at(until)), State::Retiring, "{dies_at:?}");
        assert_eq!((signer.state(at(until)), spare.state(at(until))), (State::Active, State::Prepared), "{dies_at:?}");
        let known_for = signer.times.activate_at.duration_since(signer.times.prepared_at).as_secs();
        assert!(signer.times.prepared_at >= at(from) && known_for >= 900, "{dies_at:?}: {signer:?}");
    }
}

// R25
#[test]
fn a_leader_that_dies_at_any_step_of_a_taint_leaves_it_to_the_next_which_ends_it() {
    let (from, until) = (2 * HOUR, 2 * HOUR + 400);
    let first_one = first()[0].id.clone();
    let orders = |now| match now {
        _ if now < from => no_orders(),
        _ if now < from + 200 => tainted(&first()[..1]),
        _ => Orders { replaced: [first_one.clone()].into(), ..tainted(&first()[..1]) },
    };
    for dies_at in (from - 20..until).step_by(10).flat_map(|at| [(at, false), (at, true)]) {
        let slots = with_a_leader_that_dies(from, until, dies_at, orders);
        assert_eq!(states(&slots, until), [State::Active, State::Prepared], "{dies_at:?}");
        assert!(slots.iter().all(|slot| slot.id != first_one), "{dies_at:?}");
    }
}

#[test]
fn a_clock_behind_waits_for_the_first_authority() {
    let slots = advance(Vec::new(), &no_orders(), 100);
    assert_eq!(actions(&slots, &no_orders(), 99), []);
    assert_eq!(next_change(&slots, &policy(), None, at(99)), Some(at(100)));
}

#[test]
fn a_shortened_life_brings_the_successor_forward() {
    let long = AuthorityPolicy { ca_life: Duration::from_secs(10 * 365 * 86_400), ..policy() };
    let slots = applied(Kind::X509, Vec::new(), &long, &no_orders(), 0);
    assert_eq!(next_actions(Kind::X509, &slots, &long, &no_orders(), at(48 * HOUR)), []);
    let slots = advance(slots, &no_orders(), 48 * HOUR);
    assert_eq!(states(&slots, 48 * HOUR), [State::Retiring, State::Active]);
}

#[test]
fn a_life_too_short_for_a_switch_is_lengthened() {
    let short = AuthorityPolicy { ca_life: Duration::from_secs(60), ..policy() };
    assert_eq!(short.life(), Duration::from_secs(2 * (3_600 + 900) + 1_800));
    assert_eq!(policy().life(), Duration::from_secs(86_400));
}

#[test]
fn times_are_whole_seconds() {
    for (nanosecond, second) in [(1_500_000_000, 1), (-1_500_000_000, -2), (2_000_000_000, 2)] {
        assert_eq!(whole(Timestamp::from_nanosecond(nanosecond).unwrap()), at(second));
    }
}
