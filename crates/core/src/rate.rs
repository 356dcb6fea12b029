//! A token bucket: so many at once, then so many a second; and a limiter that reserves a
//! time to come back for each request that comes too soon.
//!
//! Times are those of [`Instant`]; the instants of tokio, which tests can pause, are turned into them.

use std::time::{Duration, Instant};

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
    pub fn take(&mut self, now: impl Into<Instant>) -> Result<(), Duration> {
        self.has_one(now)?;
        self.tokens -= 1;
        Ok(())
    }

    /// Whether it is as a new one would be.
    #[must_use]
    pub fn is_full(&self, now: impl Into<Instant>) -> bool {
        let now = now.into();
        let all = self.rate.each.saturating_mul(self.rate.burst);
        self.counted.is_none_or(|counted| now.saturating_duration_since(counted) >= all)
    }

    /// Whether there is one to take.
    ///
    /// # Errors
    /// The time to wait until there is.
    pub fn has_one(&mut self, now: impl Into<Instant>) -> Result<(), Duration> {
        let now = now.into();
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
        Ok(())
    }
}

/// A bucket that spreads a herd: each request that comes too soon gets a time of its own to come back, one after the other at
/// the bucket's rate.
#[derive(Clone, Copy, Debug)]
pub struct ReservingLimiter {
    bucket: Bucket,
    /// Until then the rate is reserved for those that were refused.
    reserved_until: Option<Instant>,
}

/// The longest wait that a [`ReservingLimiter`] asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl ReservingLimiter {
    /// With a full bucket.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { bucket: Bucket::new(rate), reserved_until: None }
    }

    /// Takes one if there is one.
    ///
    /// # Errors
    /// The time after which to come back.
    pub fn acquire(&mut self, now: impl Into<Instant>) -> Result<(), Duration> {
        let now = now.into();
        let Err(wait) = self.bucket.take(now) else { return Ok(()) };
        let earliest = now + wait;
        let slot = self.reserved_until.map_or(earliest, |reserved| reserved.max(earliest));
        let slot = slot.min(now + LONGEST_WAIT);
        self.reserved_until = Some(slot + self.bucket.rate.each);
        Err(slot.saturating_duration_since(now))
    }

    /// Whether it is as a new one would be.
    #[must_use]
    pub fn is_full(&self, now: impl Into<Instant>) -> bool {
        self.bucket.is_full(now)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bucket, LONGEST_WAIT, Rate, ReservingLimiter};
    use std::time::{Duration, Instant};

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

    // A herd that comes back as told comes at the rate, and everyone is through in the time that it takes at least.
    #[test]
    fn a_herd_that_comes_back_as_told_is_let_through_at_the_rate() {
        let begin = Instant::now();
        let mut limiter = ReservingLimiter::new(Rate { each: Duration::from_millis(1), burst: 100 });
        let mut herd: Vec<Instant> = vec![begin; 5000];
        let (mut asked, mut through) = (0, begin);
        while let Some(index) = (0..herd.len()).min_by_key(|&index| herd[index]) {
            let now = herd[index];
            asked += 1;
            match limiter.acquire(now) {
                Ok(()) => {
                    through = through.max(now);
                    herd.swap_remove(index);
                }
                Err(wait) => herd[index] = now + wait,
            }
        }
        assert!(asked <= 2 * 5000, "{asked} asked");
        assert!(through - begin <= Duration::from_millis(5000), "{:?}", through - begin);
    }

    #[test]
    fn nobody_is_told_to_stay_away_for_ever() {
        let now = Instant::now();
        let mut limiter = ReservingLimiter::new(Rate { each: Duration::from_secs(1), burst: 1 });
        let longest = (0..1000).filter_map(|_| limiter.acquire(now).err()).max();
        assert_eq!(longest, Some(LONGEST_WAIT));
        assert!(!limiter.is_full(now) && limiter.is_full(now + Duration::from_secs(1)));
    }
}
