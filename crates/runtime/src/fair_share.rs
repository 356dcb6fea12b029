//! One rate, shared fairly by whoever uses it at the time: each gets an equal part, and what nobody else uses is everyone's.
//! Who comes too soon gets a time of its own to come back, so that a herd delays itself and nobody else.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::rate::Rate;

/// The longest wait that is asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How often those are looked for that use it no longer.
const LOOK: Duration = Duration::from_millis(100);

/// A rate and those who use it, by name. Names must be few and known: each is remembered while it uses the rate.
#[derive(Debug)]
pub struct FairShare {
    /// In all, a second.
    rate: f64,
    /// In all, at once.
    burst: f64,
    users: HashMap<String, User>,
    looked_at: Option<Instant>,
}

#[derive(Debug)]
struct User {
    tokens: f64,
    counted: Instant,
    /// Until then its part is promised to those that were turned away.
    promised_until: Option<Instant>,
}

/// What one user has at a time.
#[derive(Clone, Copy, Debug)]
struct Part {
    rate: f64,
    burst: f64,
}

impl FairShare {
    /// Of a rate of which nothing is used.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let each = rate.each.max(Duration::from_nanos(1)).as_secs_f64();
        Self { rate: each.recip(), burst: f64::from(rate.burst), users: HashMap::new(), looked_at: None }
    }

    /// Takes `amount` of the part of `user`.
    ///
    /// # Errors
    /// The time after which to come back.
    pub fn take(&mut self, user: &str, amount: u32, now: Instant) -> Result<(), Duration> {
        let amount = f64::from(amount);
        self.forget(now);
        let others = self.users.len() - usize::from(self.users.contains_key(user));
        let part = self.part(others + 1, amount);
        if !self.users.contains_key(user) {
            let fresh = User { tokens: part.burst, counted: now, promised_until: None };
            self.users.insert(user.to_owned(), fresh);
        }
        let Some(user) = self.users.get_mut(user) else { return Ok(()) };
        user.earn(part, now);
        if user.tokens >= amount {
            user.tokens -= amount;
            return Ok(());
        }
        let earliest = now + Duration::from_secs_f64((amount - user.tokens) / part.rate);
        let slot = user.promised_until.map_or(earliest, |promised| promised.max(earliest));
        let slot = slot.min(now + LONGEST_WAIT);
        user.promised_until = Some(slot + Duration::from_secs_f64(amount / part.rate));
        Err(slot.saturating_duration_since(now))
    }

    fn part(&self, users: usize, amount: f64) -> Part {
        #[allow(clippy::cast_precision_loss, reason = "a number of namespaces")]
        let users = users.max(1) as f64;
        Part { rate: self.rate / users, burst: (self.burst / users).max(amount) }
    }

    /// Forgets those who are as they would be without having used it.
    fn forget(&mut self, now: Instant) {
        if self.looked_at.is_some_and(|at| now.saturating_duration_since(at) < LOOK) {
            return;
        }
        self.looked_at = Some(now);
        let part = self.part(self.users.len(), 1.0);
        self.users.retain(|_, user| {
            user.earn(part, now);
            user.tokens < part.burst || user.promised_until.is_some_and(|until| until > now)
        });
    }
}

impl User {
    fn earn(&mut self, part: Part, now: Instant) {
        let elapsed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.tokens = (self.tokens + elapsed * part.rate).min(part.burst);
        self.counted = now.max(self.counted);
    }
}

#[cfg(test)]
mod tests {
    use super::{FairShare, LONGEST_WAIT};
    use crate::rate::Rate;
    use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};
    use tokio::time::Instant;

    fn thousand_a_second(burst: u32) -> FairShare {
        FairShare::new(Rate { each: Duration::from_millis(1), burst })
    }

    /// Those who come at these times, and come back as they are told: when each is through, and how often all asked.
    fn run(
        share: &mut FairShare,
        come: impl IntoIterator<Item = (Instant, &'static str)>,
    ) -> (Vec<(Instant, &'static str)>, usize) {
        let mut queue: BinaryHeap<_> = come.into_iter().map(Reverse).collect();
        let (mut through, mut asked) = (Vec::new(), 0);
        while let Some(Reverse((now, user))) = queue.pop() {
            asked += 1;
            match share.take(user, 1, now) {
                Ok(()) => through.push((now, user)),
                Err(wait) => queue.push(Reverse((now + wait.max(Duration::from_nanos(1)), user))),
            }
        }
        (through, asked)
    }

    fn last(through: &[(Instant, &str)], user: &str, begin: Instant) -> Duration {
        through.iter().filter(|(_, who)| *who == user).map(|(at, _)| *at - begin).max().unwrap_or_default()
    }

    #[test]
    fn who_is_alone_has_all_of_it() {
        let begin = Instant::now();
        let (through, asked) = run(&mut thousand_a_second(100), std::iter::repeat_n((begin, "herd"), 5000));
        let took = last(&through, "herd", begin);
        assert!(took <= Duration::from_millis(5000) && took >= Duration::from_millis(4800), "{took:?}");
        assert!(asked <= 2 * 5000 + 100, "{asked} asked");
    }

    // A herd of ten thousand, and in the midst of it one who is alone.
    #[test]
    fn a_herd_delays_itself_and_nobody_else() {
        let begin = Instant::now();
        let mut share = thousand_a_second(1000);
        let herd = std::iter::repeat_n((begin, "herd"), 10_000);
        let few = (1..=20).map(|number| (begin + Duration::from_millis(100) * number, "few"));
        let (through, _) = run(&mut share, herd.chain(few));
        for (at, _) in through.iter().filter(|(_, user)| *user == "few") {
            assert_eq!((*at - begin).as_millis() % 100, 0, "at once");
        }
        assert!(last(&through, "herd", begin) <= Duration::from_secs(12));
    }

    #[test]
    fn two_herds_get_equal_parts_however_large_they_are() {
        let begin = Instant::now();
        let mut share = thousand_a_second(100);
        let large = std::iter::repeat_n((begin, "large"), 10_000);
        let small = std::iter::repeat_n((begin + Duration::from_secs(1), "small"), 1000);
        let (through, _) = run(&mut share, large.chain(small));
        let took = last(&through, "small", begin + Duration::from_secs(1));
        assert!(took <= Duration::from_millis(2200), "a thousand at half of a thousand a second: {took:?}");
        assert!(last(&through, "large", begin) <= Duration::from_millis(12_500), "and all of it again afterwards");
    }

    #[test]
    fn many_that_come_together_are_through_at_the_rate() {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let begin = Instant::now();
        let herd = NAMES.iter().cycle().take(4000).map(|name| (begin, *name));
        let (through, _) = run(&mut thousand_a_second(100), herd);
        let took = through.iter().map(|(at, _)| *at - begin).max().unwrap_or_default();
        assert!((Duration::from_millis(3500)..Duration::from_millis(4500)).contains(&took), "{took:?}");
    }

    #[test]
    fn nobody_is_told_to_stay_away_for_ever_and_nothing_is_kept_of_who_is_gone() {
        let now = Instant::now();
        let mut share = FairShare::new(Rate { each: Duration::from_secs(1), burst: 1 });
        let longest = (0..1000).filter_map(|_| share.take("a", 1, now).err()).max();
        assert_eq!(longest, Some(LONGEST_WAIT));
        for number in 0..1000 {
            let _ = share.take(&number.to_string(), 1, now);
        }
        assert_eq!(share.users.len(), 1001);
        share.take("b", 1, now + Duration::from_secs(3600)).expect("room");
        assert_eq!(share.users.len(), 1);
    }

    #[test]
    fn more_than_the_burst_may_be_taken_together() {
        let now = Instant::now();
        let mut share = thousand_a_second(4);
        assert!(share.take("a", 8, now).is_ok());
        assert_eq!(share.take("a", 8, now), Err(Duration::from_millis(8)));
        assert!(share.take("a", 8, now + Duration::from_millis(8)).is_ok());
    }
}
