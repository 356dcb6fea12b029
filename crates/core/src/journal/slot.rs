//! A slot: one authority and the times of its life. Every replica derives the state from these and from now, so that no
//! switch depends on anyone being alive.

use std::time::Duration;

use jiff::Timestamp;

/// One authority in the journal. `A` is what it signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot<A> {
    /// Random, hexadecimal; for a JWT authority the `kid`.
    pub id: String,
    /// When it changes state.
    pub times: Times,
    /// Since when it is not to be trusted to sign, if so.
    pub tainted_at: Option<Timestamp>,
    /// The authority.
    pub authority: A,
}

/// When a slot changes state. Whole seconds, in this order: `prepared_at ≤ activate_at < retire_at ≤ remove_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From when it is in the bundle.
    pub prepared_at: Timestamp,
    /// From when it signs.
    pub activate_at: Timestamp,
    /// From when it no longer signs: its end, until a successor is prepared; then the successor's activation.
    pub retire_at: Timestamp,
    /// Its end, when it leaves the bundle. Nothing it signs may expire later; a CA's certificate ends then.
    pub remove_at: Timestamp,
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// In the bundle, not signing yet.
    Prepared,
    /// Signing.
    Active,
    /// In the bundle until the last thing it signed has expired.
    Retiring,
    /// In the bundle until what it signed is replaced; it never signs again.
    Tainted,
    /// Neither in the bundle nor signing.
    Gone,
}

impl<A> Slot<A> {
    /// Its state at `now`.
    pub fn state(&self, now: Timestamp) -> State {
        if now >= self.times.remove_at {
            State::Gone
        } else if self.tainted_at.is_some_and(|since| since <= now) {
            State::Tainted
        } else if now < self.times.activate_at {
            State::Prepared
        } else if now < self.times.retire_at {
            State::Active
        } else {
            State::Retiring
        }
    }

    /// Whether the bundle holds it at `now`.
    pub fn is_in_bundle(&self, now: Timestamp) -> bool {
        self.state(now) != State::Gone
    }

    /// How long what is signed at `now` may live at most: to the slot's end.
    pub fn time_left(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.times.remove_at.duration_since(now)).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_state_follows_from_times_and_now() {
        let times = Times { prepared_at: at(0), activate_at: at(10), retire_at: at(20), remove_at: at(30) };
        let slot = Slot { id: "a".into(), times, tainted_at: None, authority: () };
        for (second, state) in [
            (0, State::Prepared),
            (9, State::Prepared),
            (10, State::Active),
            (19, State::Active),
            (20, State::Retiring),
            (29, State::Retiring),
            (30, State::Gone),
        ] {
            assert_eq!(slot.state(at(second)), state, "{second}");
            assert_eq!(slot.is_in_bundle(at(second)), state != State::Gone);
        }
        assert_eq!(slot.time_left(at(12)), Duration::from_secs(18));
        assert_eq!(slot.time_left(at(31)), Duration::ZERO);
    }

    #[test]
    fn a_tainted_slot_never_signs_and_stays_in_the_bundle_until_its_end() {
        let times = Times { prepared_at: at(0), activate_at: at(10), retire_at: at(20), remove_at: at(30) };
        let slot = Slot { id: "a".into(), times, tainted_at: Some(at(15)), authority: () };
        let states = [14, 15, 25, 30].map(|second| slot.state(at(second)));
        assert_eq!(states, [State::Active, State::Tainted, State::Tainted, State::Gone]);
    }
}
