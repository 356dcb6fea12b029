//! A token bucket: so many at once, then so many a second.

use std::time::Duration;

use tokio::time::Instant;

/// How much and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The time after which one more is earned.
    pub each: Duration,
    /// How many may go at once.
    pub burst: u32,
}

/// A bucket, full at first.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    tokens: u32,
    counted: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, tokens: rate.burst, counted: None }
    }

    /// Takes one if there is one.
    ///
    /// # Errors
    /// The time to wait until there is.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let counted = *self.counted.get_or_insert(now);
        let elapsed = now.saturating_duration_since(counted);
        let earned = u32::try_from(elapsed.as_nanos() / self.rate.each.as_nanos().max(1)).unwrap_or(u32::MAX);
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(self.rate.burst);
            self.counted = Some(counted + self.rate.each.saturating_mul(earned).min(elapsed));
        }
        if self.tokens == 0 {
            return Err(self.rate.each.saturating_sub(now.saturating_duration_since(self.counted.unwrap_or(now))));
        }
        self.tokens -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Bucket, Rate};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn beyond_the_burst_it_goes_at_the_rate_and_says_how_long_to_wait() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate { each: Duration::from_millis(100), burst: 2 });
        assert!(bucket.take(now).is_ok() && bucket.take(now).is_ok());
        assert_eq!(bucket.take(now + Duration::from_millis(40)), Err(Duration::from_millis(60)));
        assert!(bucket.take(now + Duration::from_millis(100)).is_ok());
        assert!(bucket.take(now + Duration::from_millis(199)).is_err());
        assert!(bucket.take(now + Duration::from_millis(200)).is_ok());
    }

    #[test]
    fn it_never_holds_more_than_the_burst() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate { each: Duration::from_millis(1), burst: 3 });
        assert!(bucket.take(now).is_ok());
        let later = now + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| bucket.take(later).is_ok()).count(), 3);
    }
}
