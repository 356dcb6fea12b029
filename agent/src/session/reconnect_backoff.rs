//! How long a session waits before it reconnects to the issuer. Randomness comes in as a value.

use std::time::Duration;

use countersign_core::renewal::{LONGEST_ASKED, LONGEST_RETRY, SHORTEST_RETRY};

/// A stream that lasted this long resets the backoff. One that ends sooner, as with an issuer that restarts again and again,
/// does not.
const STABLE: Duration = Duration::from_secs(30);

/// A stream that is asked to move before it has lasted this long counts as a failure: two issuers that send an agent back and
/// forth must not keep it busy.
const MIN_BEFORE_MOVE: Duration = Duration::from_secs(1);

/// How a stream ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamOutcome {
    /// How long it lasted.
    pub(super) lasted: Duration,
    /// The issuer asked the session to move: it had served it, and ended the stream with a time to reconnect.
    pub(super) move_requested: bool,
    /// The delay that the issuer named, with a request to move or with a refusal.
    pub(super) requested_delay: Option<Duration>,
}

/// Counts consecutive failures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReconnectBackoff {
    failures: u32,
}

impl ReconnectBackoff {
    /// How long to wait: the delay the issuer requested and, unless it asked to move, a random part of a span that doubles
    /// with every failure up to [`LONGEST_RETRY`] ("full jitter"). `jitter` is uniform in [0, 1).
    pub(super) fn next_delay(&mut self, outcome: StreamOutcome, jitter: f64) -> Duration {
        self.failures = match outcome {
            StreamOutcome { move_requested: true, lasted, .. } if lasted >= MIN_BEFORE_MOVE => 0,
            StreamOutcome { lasted, .. } if lasted >= STABLE => 1,
            _ => self.failures.saturating_add(1),
        };
        let requested_delay = outcome.requested_delay.unwrap_or_default().min(LONGEST_ASKED);
        let Some(doublings) = self.failures.checked_sub(1) else { return requested_delay };
        let ceiling = (SHORTEST_RETRY * 2).saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        requested_delay + ceiling.min(LONGEST_RETRY).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST_ASKED, LONGEST_RETRY, ReconnectBackoff, STABLE, StreamOutcome};

    const FAILED: StreamOutcome =
        StreamOutcome { lasted: Duration::ZERO, move_requested: false, requested_delay: None };

    fn asked_to_move(lasted: Duration) -> StreamOutcome {
        StreamOutcome { lasted, move_requested: true, requested_delay: Some(Duration::from_millis(120)) }
    }

    #[test]
    fn waits_double_to_a_ceiling_and_are_spread_over_all_of_it() {
        let mut backoff = ReconnectBackoff::default();
        let longest: Vec<_> = (0..12).map(|_| backoff.next_delay(FAILED, 1.0).as_millis()).collect();
        assert_eq!(longest, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.next_delay(FAILED, 0.0), Duration::ZERO);
        assert_eq!(backoff.next_delay(FAILED, 0.5), LONGEST_RETRY / 2);
        let mut long = ReconnectBackoff { failures: u32::MAX };
        assert_eq!(long.next_delay(FAILED, 1.0), LONGEST_RETRY);
    }

    #[test]
    fn a_session_asked_to_move_reconnects_at_the_requested_time() {
        let mut backoff = ReconnectBackoff { failures: 7 };
        assert_eq!(backoff.next_delay(asked_to_move(STABLE), 1.0), Duration::from_millis(120));
        assert_eq!(
            backoff.next_delay(FAILED, 1.0),
            Duration::from_millis(200),
            "and the failures before are forgotten"
        );
    }

    #[test]
    fn an_issuer_that_asks_to_move_again_and_again_is_not_obeyed_for_ever() {
        let mut backoff = ReconnectBackoff::default();
        let waits: Vec<_> =
            (0..4).map(|_| backoff.next_delay(asked_to_move(Duration::ZERO), 1.0).as_millis()).collect();
        assert_eq!(waits, [320, 520, 920, 1720]);
    }

    #[test]
    fn what_the_issuer_asks_for_comes_on_top_and_is_bounded() {
        let refused = |delay| StreamOutcome { requested_delay: Some(delay), ..FAILED };
        assert_eq!(
            ReconnectBackoff::default().next_delay(refused(Duration::from_secs(2)), 0.0),
            Duration::from_secs(2)
        );
        assert_eq!(ReconnectBackoff::default().next_delay(refused(Duration::MAX), 0.0), LONGEST_ASKED);
    }

    #[test]
    fn a_stream_that_was_steady_ends_a_row_of_failures() {
        let mut backoff = ReconnectBackoff { failures: 9 };
        assert_eq!(backoff.next_delay(StreamOutcome { lasted: STABLE, ..FAILED }, 1.0), Duration::from_millis(200));
    }
}
