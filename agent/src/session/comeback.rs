//! When a session comes back to the issuer after a stream has ended. Randomness comes in as a value.

use std::time::Duration;

use countersign_core::renewal::{LONGEST_ASKED, LONGEST_RETRY, SHORTEST_RETRY};

/// A stream that lived so long ended for a reason of its own: the backoff begins anew. One that ends sooner, as in an
/// issuer that dies again and again, does not.
const STEADY: Duration = Duration::from_secs(30);

/// A stream that is asked to move after less than this is not moved at once: two issuers that send an agent to and fro do
/// not keep it busy.
const SETTLED: Duration = Duration::from_secs(1);

/// How a stream ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// How long it had lived.
    pub(super) lived: Duration,
    /// The issuer asked it to move: it was served, and the issuer itself ended it with a time to come back.
    pub(super) moved: bool,
    /// That time, or the one which an issuer that refused has named.
    pub(super) asked: Option<Duration>,
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Comeback {
    failures: u32,
}

impl Comeback {
    /// How long to wait: what the issuer asked for and, unless it asked to move, a random part of what doubles with every
    /// failure up to [`LONGEST_RETRY`] ("full jitter"). `jitter` is uniform in [0, 1).
    pub(super) fn after(&mut self, ending: Ending, jitter: f64) -> Duration {
        self.failures = match ending {
            Ending { moved: true, lived, .. } if lived >= SETTLED => 0,
            Ending { lived, .. } if lived >= STEADY => 1,
            _ => self.failures.saturating_add(1),
        };
        let asked = ending.asked.unwrap_or_default().min(LONGEST_ASKED);
        let Some(doublings) = self.failures.checked_sub(1) else { return asked };
        let ceiling = (SHORTEST_RETRY * 2).saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        asked + ceiling.min(LONGEST_RETRY).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Comeback, Ending, LONGEST_ASKED, LONGEST_RETRY, STEADY};

    const FAILED: Ending = Ending { lived: Duration::ZERO, moved: false, asked: None };

    fn moved(lived: Duration) -> Ending {
        Ending { lived, moved: true, asked: Some(Duration::from_millis(120)) }
    }

    #[test]
    fn waits_double_to_a_ceiling_and_are_spread_over_all_of_it() {
        let mut comeback = Comeback::default();
        let longest: Vec<_> = (0..12).map(|_| comeback.after(FAILED, 1.0).as_millis()).collect();
        assert_eq!(longest, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000, 30_000]);
        assert_eq!(comeback.after(FAILED, 0.0), Duration::ZERO);
        assert_eq!(comeback.after(FAILED, 0.5), LONGEST_RETRY / 2);
        let mut long = Comeback { failures: u32::MAX };
        assert_eq!(long.after(FAILED, 1.0), LONGEST_RETRY);
    }

    #[test]
    fn who_is_asked_to_move_comes_back_when_it_was_told() {
        let mut comeback = Comeback { failures: 7 };
        assert_eq!(comeback.after(moved(STEADY), 1.0), Duration::from_millis(120));
        assert_eq!(comeback.after(FAILED, 1.0), Duration::from_millis(200), "and has a clean record");
    }

    #[test]
    fn an_issuer_that_asks_to_move_again_and_again_is_not_obeyed_for_ever() {
        let mut comeback = Comeback::default();
        let waits: Vec<_> = (0..4).map(|_| comeback.after(moved(Duration::ZERO), 1.0).as_millis()).collect();
        assert_eq!(waits, [320, 520, 920, 1720]);
    }

    #[test]
    fn what_the_issuer_asks_for_comes_on_top_and_is_bounded() {
        let asked = |asked| Ending { asked: Some(asked), ..FAILED };
        assert_eq!(Comeback::default().after(asked(Duration::from_secs(2)), 0.0), Duration::from_secs(2));
        assert_eq!(Comeback::default().after(asked(Duration::MAX), 0.0), LONGEST_ASKED);
    }

    #[test]
    fn a_stream_that_was_steady_ends_a_row_of_failures() {
        let mut comeback = Comeback { failures: 9 };
        assert_eq!(comeback.after(Ending { lived: STEADY, ..FAILED }, 1.0), Duration::from_millis(200));
    }
}
