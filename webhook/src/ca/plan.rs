//! When an authority is added and when it is removed.

use jiff::Timestamp;

use super::{Authority, CaState, ServedCertificate, ValidityPeriods};

/// The change to make to the stored authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// None.
    Keep,
    /// Add an authority.
    Add {
        /// The time from which it signs.
        signs_from: Timestamp,
    },
    /// Remove these authorities: everything they signed has expired.
    Drop {
        /// Their indices, from 0.
        indices: Vec<usize>,
    },
}

/// The change to make now. A new authority is prepared at half the validity of the newest; its predecessors are removed when
/// the last certificate that they signed has expired.
#[must_use]
pub fn next(state: &CaState, periods: ValidityPeriods, now: Timestamp) -> Plan {
    let Some(newest) = state.authorities.last().filter(|newest| now < newest.not_after) else {
        return Plan::Add { signs_from: now };
    };
    if now >= successor_due_at(newest, periods) {
        // The newest keeps signing only while its certificates can have their full validity: a short propagation delay is
        // better than a gap.
        let latest = newest.not_after - newest.serving_validity();
        return Plan::Add { signs_from: (now + periods.propagation_delay).min(latest).max(now) };
    }
    let is_expired = |index: &usize| removable_at(state, *index).is_some_and(|at| now >= at);
    let indices: Vec<usize> = (0..state.authorities.len()).filter(is_expired).collect();
    if indices.is_empty() { Plan::Keep } else { Plan::Drop { indices } }
}

/// The time of the next change, if nothing else changes.
#[must_use]
pub fn next_event(state: &CaState, periods: ValidityPeriods, served: &ServedCertificate, now: Timestamp) -> Timestamp {
    let successor = state.authorities.last().map(|newest| successor_due_at(newest, periods));
    let activations = state.authorities.iter().map(|authority| authority.signs_from);
    let removals = (0..state.authorities.len()).filter_map(|index| removable_at(state, index));
    let events = successor.into_iter().chain(activations).chain(removals).filter(|event| *event > now);
    events.fold(served.renew_at.max(now), Timestamp::min)
}

/// When a successor is prepared: at half the validity that the authority has, or that a new one would have now.
fn successor_due_at(newest: &Authority, periods: ValidityPeriods) -> Timestamp {
    newest.not_before + newest.validity().min(periods.authority) / 2
}

/// When everything that the authority at `index` signed has expired. It signs until a successor starts to sign.
fn removable_at(state: &CaState, index: usize) -> Option<Timestamp> {
    let authority = state.authorities.get(index)?;
    let replaced = state.authorities.iter().skip(index + 1).map(|successor| successor.signs_from).min()?;
    Some((replaced + authority.serving_validity()).min(authority.not_after.max(replaced)))
}
