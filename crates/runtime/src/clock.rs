//! The time, as a value that tests choose.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;

/// Timers are re-evaluated at least this often: the clock may be set, or the machine suspended, and timers notice neither.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// Nor more often than this, when what is due cannot be done.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// Says what time it is.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// A clock of one's own.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }

    /// Waits until `at`, but for ten seconds at most and a tenth of a second at least; callers then re-evaluate what is due.
    pub async fn draws_near(&self, at: Timestamp) {
        tokio::time::sleep(self.until(at).clamp(SHORTEST_SLEEP, LONGEST_SLEEP)).await;
    }

    /// How long it is until `at`; zero when that has passed.
    #[must_use]
    pub fn until(&self, at: Timestamp) -> Duration {
        Duration::try_from(at.duration_since(self.now())).unwrap_or(Duration::ZERO)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use std::time::Duration;

    use jiff::Timestamp;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_as_long_as_the_time_is_away_but_never_endless_nor_none() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let clock = Clock::new(move || at(1_000));
        for (until, waits) in
            [(at(1_003), 3_000), (at(9_000), 10_000), (Timestamp::MAX, 10_000), (at(1_000), 100), (at(0), 100)]
        {
            let begin = Instant::now();
            clock.draws_near(until).await;
            assert_eq!(begin.elapsed(), Duration::from_millis(waits), "{until}");
        }
    }
}
