//! When to poll. Randomness comes in as a value, so that domains spread and a test does not.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Two polls of an endpoint are never closer than this.
pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(30);

/// An endpoint is never polled less often than this.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// How many polls may fail in a row before a bundle is stale.
const POLLS_BEFORE_STALE: u32 = 4;

/// How long to wait after a poll: the refresh hint (SPIFFE Federation, section 4.1) within [`SHORTEST_INTERVAL`] and
/// [`LONGEST_INTERVAL`], and at most a quarter of `max_stale`. After `failures` in a row the first retry comes at the next
/// interval (section 6.2), then each wait is twice the one before, within the same bounds. `jitter` in [0, 1) spreads waits over
/// their last tenth, or, where that is below the bound, the tenth above it; what lies outside is clamped.
pub(super) fn poll_interval(hint: Duration, failures: u32, max_stale: Duration, jitter: f64) -> Duration {
    let longest = (max_stale / POLLS_BEFORE_STALE).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
    let doublings = failures.saturating_sub(1);
    let backoff = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let interval = hint.clamp(SHORTEST_INTERVAL, longest).saturating_mul(backoff).min(longest);
    let spread = interval / 10;
    let from = interval.saturating_sub(spread).max(SHORTEST_INTERVAL);
    let jitter = if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) };
    (from + spread.mul_f64(jitter)).min(longest)
}

pub(super) fn plus(time: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    time.saturating_add(span).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn seconds(hint: u64, failures: u32, max_stale: Duration, jitter: f64) -> f64 {
        poll_interval(Duration::from_secs(hint), failures, max_stale, jitter).as_secs_f64()
    }

    #[test]
    fn a_poll_comes_at_the_hint_or_up_to_a_tenth_before() {
        for (jitter, expected) in
            [(0.0, 270.0), (0.5, 285.0), (1.0, 300.0), (-3.0, 270.0), (7.0, 300.0), (f64::NAN, 270.0)]
        {
            assert_eq!(seconds(300, 0, DAY, jitter), expected, "{jitter}");
        }
    }

    #[test]
    fn a_hint_is_clamped_to_half_a_minute_and_an_hour_and_still_spread() {
        for (hint, jitter, expected) in [
            (0, 0.0, 30.0),
            (0, 1.0, 33.0),
            (30, 0.0, 30.0),
            (31, 0.0, 30.0),
            (u64::MAX, 0.0, 3_240.0),
            (u64::MAX, 1.0, 3_600.0),
        ] {
            assert_eq!(seconds(hint, 0, DAY, jitter), expected, "{hint} {jitter}");
        }
    }

    #[test]
    fn the_first_retry_waits_for_the_interval_and_later_ones_twice_as_long_up_to_an_hour() {
        let waits: Vec<f64> = (0..8).map(|failures| seconds(300, failures, DAY, 1.0)).collect();
        assert_eq!(waits, [300.0, 300.0, 600.0, 1_200.0, 2_400.0, 3_600.0, 3_600.0, 3_600.0]);
        assert_eq!(seconds(300, u32::MAX, DAY, 1.0), 3_600.0);
    }

    #[test]
    fn several_polls_may_fail_before_a_bundle_is_stale() {
        assert_eq!(seconds(3_600, 0, Duration::from_secs(3_600), 1.0), 900.0);
        assert_eq!(seconds(3_600, 9, Duration::from_secs(3_600), 1.0), 900.0);
        assert_eq!(seconds(3_600, 9, Duration::ZERO, 1.0), 30.0);
    }

    proptest! {
        #[test]
        fn a_poll_is_always_due_within_the_bounds(hint in any::<u64>(), failures in any::<u32>(), stale in any::<u64>(), jitter in any::<f64>()) {
            let wait = poll_interval(Duration::from_secs(hint), failures, Duration::from_secs(stale), jitter);
            prop_assert!((SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&wait), "{wait:?}");
        }
    }
}
