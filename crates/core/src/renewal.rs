//! When to renew a credential and when to try again. Randomness comes in as a value, so that a fleet spreads and a test
//! does not.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The first retry comes no earlier than this.
pub const SHORTEST_RETRY: Duration = Duration::from_millis(100);
/// Retries are never further apart than this, unless the server asks for more.
pub const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A server that is overloaded may ask for at most this delay.
pub const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// When to renew what is valid from `not_before` to `not_after`: at half its life, give or take 10 % of that half.
/// `jitter` is uniform in [-1, 1]; what lies outside is clamped. What has no life is renewed at once.
pub fn renew_at(not_before: Timestamp, not_after: Timestamp, jitter: f64) -> Timestamp {
    let life = Duration::try_from(not_after.duration_since(not_before)).unwrap_or(Duration::ZERO);
    let until = (life / 2).mul_f64(1.0 + 0.1 * clamped(jitter));
    SignedDuration::try_from(until).ok().and_then(|until| not_before.checked_add(until).ok()).unwrap_or(not_before)
}

/// How long to wait before the next attempt after `failures` in a row: doubling up to [`LONGEST_RETRY`], spread over the
/// lower half by `jitter` (uniform in [-1, 1]), and on top of what the server `asked` for. Nothing before the first failure.
pub fn next_attempt(failures: u32, jitter: f64, asked: Option<Duration>) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let ceiling =
        (SHORTEST_RETRY * 2).saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST_RETRY);
    let backoff = ceiling.mul_f64(0.75 + 0.25 * clamped(jitter));
    backoff + asked.unwrap_or_default().min(LONGEST_ASKED)
}

fn clamped(jitter: f64) -> f64 {
    if jitter.is_nan() { 0.0 } else { jitter.clamp(-1.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn renews_at_half_life_give_or_take_a_tenth() {
        for (jitter, second) in
            [(0.0, 2_800), (1.0, 2_980), (-1.0, 2_620), (7.0, 2_980), (f64::NAN, 2_800), (f64::NEG_INFINITY, 2_620)]
        {
            assert_eq!(renew_at(at(1_000), at(4_600), jitter), at(second), "{jitter}");
        }
    }

    #[test]
    fn what_has_no_life_is_renewed_at_once() {
        assert_eq!(renew_at(at(1_000), at(1_000), 1.0), at(1_000));
        assert_eq!(renew_at(at(1_000), at(500), 1.0), at(1_000));
    }

    #[test]
    fn retries_double_to_a_ceiling() {
        let steps: Vec<_> = (0..12).map(|failures| next_attempt(failures, 1.0, None).as_millis()).collect();
        assert_eq!(steps, [0, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000, 30_000]);
        assert_eq!(next_attempt(1, -1.0, None), SHORTEST_RETRY);
        assert_eq!(next_attempt(u32::MAX, 1.0, None), LONGEST_RETRY);
    }

    #[test]
    fn a_servers_wish_is_granted_within_bounds_and_still_spread() {
        let asked = Some(Duration::from_secs(10));
        assert!(next_attempt(1, -1.0, asked) >= Duration::from_secs(10));
        assert!(next_attempt(1, -1.0, asked) < next_attempt(1, 1.0, asked));
        assert!(next_attempt(1, 1.0, Some(Duration::MAX)) <= LONGEST_ASKED + LONGEST_RETRY);
    }

    proptest! {
        #[test]
        fn renewal_leaves_time_to_fail(life in 1_i64..10_000_000, jitter in -2.0_f64..2.0) {
            let renew = renew_at(at(0), at(life), jitter);
            prop_assert!(renew > at(0));
            prop_assert!(renew.duration_since(at(0)) <= SignedDuration::from_secs(life).mul_f64(0.5501));
        }

        #[test]
        fn retries_stay_within_bounds(failures in 1_u32.., jitter in -2.0_f64..2.0) {
            let wait = next_attempt(failures, jitter, None);
            prop_assert!(wait >= SHORTEST_RETRY && wait <= LONGEST_RETRY);
        }
    }
}
