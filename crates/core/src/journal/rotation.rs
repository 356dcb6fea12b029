//! What is due for the authorities of one kind: a spare is always published, it takes over in time or when everyone knows it,
//! what is tainted or revoked stops, and what has ended is removed. Pure: the slots, what was asked for and a time in, actions
//! out.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Kind;
use super::plan::{Action, AuthorityPolicy, SwitchReason, change};
use super::slot::{Slot, State, Times};

/// How long after everyone has acknowledged its bundle a successor signs: replicas learn of the switch before it happens.
pub const NOTICE: Duration = Duration::from_secs(30);

/// How long agents have for learning an authority that signs unannounced, since all others were revoked.
pub const UNANNOUNCED_NOTICE: Duration = Duration::from_secs(5);

/// How many authorities of a kind there may be for a requested rotation to add one: those that retire stay until their end, and
/// every workload has all of them.
pub const MAX_AUTHORITIES: usize = 8;

/// What bears on the slots of one kind, by their ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    /// Everything prepared before is to be replaced.
    pub(super) after: Option<Timestamp>,
    pub(super) tainted: BTreeSet<String>,
    pub(super) revoked: BTreeSet<String>,
    /// Whether everyone has acknowledged the bundle as it is now.
    pub(super) acknowledged: bool,
    /// Tainted ones whose leaves have all been replaced.
    pub(super) replaced: BTreeSet<String>,
}

/// The slot that signs at `now`.
pub(super) fn active<A>(slots: &[Slot<A>], now: Timestamp) -> Option<&Slot<A>> {
    slots.iter().find(|slot| slot.state(now) == State::Active)
}

/// What is due at `now`.
pub(super) fn next_actions<A>(
    kind: Kind,
    slots: &[Slot<A>],
    policy: &AuthorityPolicy,
    orders: &Orders,
    now: Timestamp,
) -> Vec<Action> {
    let mut draft = Draft::new(slots);
    let revoked = draft.ids(|slot| orders.revoked.contains(&slot.id));
    revoked.into_iter().for_each(|slot| draft.push(Action::Revoke { slot }));
    let done = |slot: &Slot<()>| {
        let replaced = slot.state(now) == State::Tainted && orders.replaced.contains(&slot.id);
        slot.state(now) == State::Gone || replaced
    };
    draft.ids(done).into_iter().for_each(|slot| draft.push(Action::Remove { slot }));
    taint(kind, &mut draft, policy, orders, now);
    // One that is no longer enabled signs until its end, and has no successor.
    if policy.enables(kind) {
        sign(&mut draft, policy, now);
        prepare(&mut draft, policy, orders, now);
    }
    draft.actions
}

/// The next moment after `now` at which a state changes or something is due.
pub(super) fn next_change<A>(
    slots: &[Slot<A>],
    policy: &AuthorityPolicy,
    after: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let switches = slots.iter().flat_map(|slot| [slot.times.activate_at, slot.times.retire_at, slot.times.remove_at]);
    let draft = Draft::new(slots);
    let windows = draft.signer_and_spare(now).1.map(|spare| opens(&spare.times, policy));
    switches.chain(windows).chain(after).filter(|at| *at > now).min()
}

/// What is to be tainted stops signing. What it signed is replaced until it leaves the bundle; one that never signed leaves at
/// once.
fn taint(kind: Kind, draft: &mut Draft, policy: &AuthorityPolicy, orders: &Orders, now: Timestamp) {
    let due = |slot: &Slot<()>| slot.tainted_at.is_none() && orders.tainted.contains(&slot.id);
    for slot in draft.ids(|slot| due(slot) && slot.state(now) == State::Prepared) {
        draft.push(Action::Remove { slot });
    }
    // By then everything it signed has expired, if not replaced before. A token that was handed out cannot be replaced.
    let expired = plus(now, signed(policy.longest_svid_life));
    let remove_at = match kind {
        Kind::X509 => expired.min(plus(now, signed(policy.taint_max_delay))),
        Kind::Jwt | Kind::Wit => expired,
    };
    for slot in draft.ids(due) {
        draft.push(Action::Taint { slot, at: now, remove_at: whole_after(remove_at) });
    }
}

/// One signs, now or as soon as it may.
fn sign(draft: &mut Draft, policy: &AuthorityPolicy, now: Timestamp) {
    if draft.active(now).is_some() {
        return;
    }
    match draft.prepared(now) {
        // Made in the future of a clock that is behind: it will sign when that has caught up.
        Some(successor) if whole(now) < successor.times.prepared_at => {}
        Some(successor) => {
            let at = whole(now).max(plus(successor.times.prepared_at, signed(UNANNOUNCED_NOTICE)));
            if at < successor.times.activate_at {
                let slot = successor.id.clone();
                draft.push(Action::ActivateAt { slot, at });
            }
        }
        None => {
            // Where the others were revoked or tainted just now, workloads that are served learn it first.
            let is_urgent = draft.actions.iter().any(|one| matches!(one, Action::Revoke { .. } | Action::Taint { .. }));
            let notice = if is_urgent { UNANNOUNCED_NOTICE } else { Duration::ZERO };
            let times = times(whole(now), plus(whole(now), signed(notice)), policy);
            draft.push(Action::Prepare { times, unannounced: !draft.was_empty });
        }
    }
}

/// Beside the one that signs there is a spare, which takes over in time.
fn prepare(draft: &mut Draft, policy: &AuthorityPolicy, orders: &Orders, now: Timestamp) {
    // A request for the future is due then.
    let after = orders.after.filter(|after| *after <= now);
    let is_stale = |slot: &Slot<()>| after.is_some_and(|after| slot.times.prepared_at < after);
    let (Some(signer), spare) = draft.signer_and_spare(now) else { return };
    // A clock that is behind plans nothing.
    if whole(now) < signer.times.prepared_at {
        return;
    }
    let (signer, has_room) = (signer.clone(), draft.slots.len() < MAX_AUTHORITIES);
    let spare = match spare.cloned() {
        Some(spare) if has_room && is_stale(&spare) => {
            // It never signed, so nobody needs it.
            draft.push(Action::Remove { slot: spare.id });
            None
        }
        spare => spare,
    };
    let Some(spare) = spare else {
        let prepared_at = whole(now);
        let at = latest_switch(&signer.times, prepared_at, has_room && is_stale(&signer), policy);
        let known = plus(prepared_at, signed(policy.time_to_learn()));
        let prepared = Action::Prepare { times: times(prepared_at, at, policy), unannounced: at < known };
        draft.prepare_successor(&signer, prepared, at);
        return;
    };
    // One that was published before the request still serves it: it was prepared after.
    let requested = is_stale(&signer) && !is_stale(&spare);
    let planned = latest_switch(&signer.times, spare.times.prepared_at, requested, policy);
    let mut switch = (planned, if requested { SwitchReason::Requested } else { SwitchReason::Policy });
    let noticed = whole_after(plus(now, signed(NOTICE)));
    if orders.acknowledged && now >= opens(&spare.times, policy) && noticed < switch.0 {
        switch = (noticed, SwitchReason::Acknowledged);
    }
    let (at, reason) = switch;
    if at < spare.times.activate_at {
        draft.push(Action::SwitchAt { from: signer.id, to: spare.id, at, reason });
    }
}

/// The latest time at which the successor of `signer` signs: once everyone can know it, and early enough that what its
/// predecessor signed last has its whole life before that one's end.
fn latest_switch(signer: &Times, prepared_at: Timestamp, requested: bool, policy: &AuthorityPolicy) -> Timestamp {
    let known = plus(prepared_at, signed(policy.time_to_learn()));
    // Where the policy has become shorter since the signer was made, its life is that of today's.
    let life = plus(signer.activate_at, signed(policy.life() + policy.max_delay));
    let scheduled = plus(signer.remove_at.min(life), -signed(policy.longest_svid_life));
    let wanted = if requested { scheduled.min(plus(known, signed(policy.max_delay))) } else { scheduled };
    whole(wanted).max(known).min(signer.remove_at)
}

/// From when acknowledgements let the successor sign before its latest time: not before everyone can know it.
fn opens(spare: &Times, policy: &AuthorityPolicy) -> Timestamp {
    let known = plus(spare.prepared_at, signed(policy.time_to_learn()));
    plus(spare.activate_at, -signed(policy.max_delay)).max(known)
}

/// The slots as they will be, and the actions that make them so.
struct Draft {
    slots: Vec<Slot<()>>,
    actions: Vec<Action>,
    was_empty: bool,
}

impl Draft {
    fn new<A>(slots: &[Slot<A>]) -> Self {
        let copy = |slot: &Slot<A>| {
            let (id, times, tainted_at) = (slot.id.clone(), slot.times, slot.tainted_at);
            Slot { id, times, tainted_at, authority: () }
        };
        Self { slots: slots.iter().map(copy).collect(), actions: Vec::new(), was_empty: slots.is_empty() }
    }

    fn push(&mut self, action: Action) {
        match &action {
            // It has no id yet.
            Action::Prepare { times, .. } => {
                self.slots.push(Slot { id: String::new(), times: *times, tainted_at: None, authority: () });
            }
            other => change(&mut self.slots, other),
        }
        self.actions.push(action);
    }

    fn ids(&self, wanted: impl Fn(&Slot<()>) -> bool) -> Vec<String> {
        self.slots.iter().filter(|slot| wanted(slot)).map(|slot| slot.id.clone()).collect()
    }

    fn active(&self, now: Timestamp) -> Option<&Slot<()>> {
        active(&self.slots, now)
    }

    /// The prepared slot that comes next.
    fn prepared(&self, now: Timestamp) -> Option<&Slot<()>> {
        let prepared = self.slots.iter().filter(|slot| slot.state(now) == State::Prepared);
        prepared.min_by_key(|slot| slot.times.activate_at)
    }

    /// The slot that signs, or will sign next if none does, and the prepared slot that comes after it.
    fn signer_and_spare(&self, now: Timestamp) -> (Option<&Slot<()>>, Option<&Slot<()>>) {
        let Some(signer) = self.active(now).or_else(|| self.prepared(now)) else { return (None, None) };
        let others = self.slots.iter().filter(|slot| slot.state(now) == State::Prepared && slot.id != signer.id);
        (Some(signer), others.min_by_key(|slot| slot.times.activate_at))
    }

    /// Prepares the successor of `signer`, and then lets `signer` sign until that one does.
    fn prepare_successor(&mut self, signer: &Slot<()>, prepared: Action, at: Timestamp) {
        if !signer.id.is_empty() {
            self.push(prepared);
            if signer.times.retire_at != at {
                self.push(Action::RetireAt { slot: signer.id.clone(), at });
            }
            return;
        }
        // It is being made, and says so itself.
        for action in &mut self.actions {
            if let Action::Prepare { times, .. } = action {
                times.retire_at = at;
            }
        }
        self.slots.iter_mut().filter(|slot| slot.id.is_empty()).for_each(|slot| slot.times.retire_at = at);
        self.push(prepared);
    }
}

fn times(prepared_at: Timestamp, activate_at: Timestamp, policy: &AuthorityPolicy) -> Times {
    let end = plus(activate_at, signed(policy.life()));
    Times { prepared_at, activate_at, retire_at: end, remove_at: end }
}

/// Certificates know whole seconds only.
fn whole(time: Timestamp) -> Timestamp {
    let floor = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    Timestamp::from_second(floor).unwrap_or(time)
}

/// The first whole second that is not before `time`.
pub fn whole_after(time: Timestamp) -> Timestamp {
    let floor = whole(time);
    if floor == time { floor } else { plus(floor, SignedDuration::from_secs(1)) }
}

fn plus(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.saturating_add(span).unwrap_or(time)
}

fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
