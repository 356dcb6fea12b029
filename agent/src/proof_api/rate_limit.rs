//! How many requests are answered: a token bucket.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Admits up to `burst` requests at once, and `per_second` in the long run.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    at: Instant,
}

impl RateLimit {
    pub(super) fn new(per_second: f64, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self { per_second, burst, state: Mutex::new(State { tokens: burst, at: now }) }
    }

    /// Takes one token, or says how long it takes until there is one.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock();
        let since = now.saturating_duration_since(state.at).as_secs_f64();
        state.tokens = since.mul_add(self.per_second, state.tokens).min(self.burst);
        state.at = now;
        if state.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - state.tokens) / self.per_second));
        }
        state.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_admitted_and_then_what_the_rate_allows() {
        let start = Instant::now();
        let limit = RateLimit::new(10.0, 3, start);
        let admitted = |at: Instant| limit.admit(at).is_ok();
        assert_eq!([(); 4].map(|()| admitted(start)), [true, true, true, false]);
        assert_eq!(limit.admit(start), Err(Duration::from_millis(100)));
        let later = start + Duration::from_millis(100);
        assert_eq!([admitted(later), admitted(later)], [true, false]);
        let much_later = start + Duration::from_secs(60);
        assert_eq!([(); 4].map(|()| admitted(much_later)), [true, true, true, false]);
    }
}
