//! When an authority is made and when it goes.

use jiff::Timestamp;

use super::{Authority, CaState, Lives, Served};

/// What is to be done with what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Keep,
    /// Add an authority which signs from then on.
    Add {
        /// From when it signs.
        signs_from: Timestamp,
    },
    /// Take these away: nothing that they signed is left.
    Drop {
        /// Their places, from 0.
        places: Vec<usize>,
    },
}

/// What is to be done now. An authority is prepared at half the life of the newest; its predecessors go when the last
/// certificate which they signed has expired.
#[must_use]
pub fn next(state: &CaState, lives: Lives, now: Timestamp) -> Plan {
    let Some(newest) = state.authorities.last().filter(|newest| now < newest.not_after) else {
        return Plan::Add { signs_from: now };
    };
    if now >= half(newest, lives) {
        // The newest still signs while what it signs can have its whole life: short notice is better than none.
        let latest = newest.not_after - newest.serving_life();
        return Plan::Add { signs_from: (now + lives.notice).min(latest).max(now) };
    }
    let is_done = |place: &usize| goes_at(state, *place).is_some_and(|at| now >= at);
    let places: Vec<usize> = (0..state.authorities.len()).filter(is_done).collect();
    if places.is_empty() { Plan::Keep } else { Plan::Drop { places } }
}

/// When there is something to be done next, if nothing else changes.
#[must_use]
pub fn next_event(state: &CaState, lives: Lives, served: &Served, now: Timestamp) -> Timestamp {
    let halves = state.authorities.last().map(|newest| half(newest, lives));
    let turns = state.authorities.iter().map(|authority| authority.signs_from);
    let ends = (0..state.authorities.len()).filter_map(|place| goes_at(state, place));
    let events = halves.into_iter().chain(turns).chain(ends).filter(|event| *event > now);
    events.fold(served.renew_at.max(now), Timestamp::min)
}

/// When a successor is prepared: at half the life that it has, or that it would have today.
fn half(newest: &Authority, lives: Lives) -> Timestamp {
    newest.not_before + newest.life().min(lives.authority) / 2
}

/// When nothing is left of what the authority at this place signed. It signed until a successor's turn came.
fn goes_at(state: &CaState, place: usize) -> Option<Timestamp> {
    let authority = state.authorities.get(place)?;
    let replaced = state.authorities.iter().skip(place + 1).map(|successor| successor.signs_from).min()?;
    Some((replaced + authority.serving_life()).min(authority.not_after.max(replaced)))
}
