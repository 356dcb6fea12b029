//! How often refusals are logged, whose number others decide.

use std::time::{Duration, Instant};

/// Between two lines of the log.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one refusal in each interval be logged.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    last: Option<Instant>,
    left_out: u64,
}

impl RefusalLog {
    /// Whether a refusal at `now` is logged: then how many were left out before it.
    pub(crate) fn next(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refusal_in_each_interval_is_logged_with_the_number_of_those_left_out() {
        let (mut log, begin) = (RefusalLog::default(), Instant::now());
        let at = |log: &mut RefusalLog, milliseconds| log.next(begin + Duration::from_millis(milliseconds));
        assert_eq!([0, 1, 999].map(|time| at(&mut log, time)), [Some(0), None, None]);
        assert_eq!([1000, 1001, 2000].map(|time| at(&mut log, time)), [Some(2), None, Some(1)]);
    }
}
