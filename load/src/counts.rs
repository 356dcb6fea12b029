//! What an operator has pushed to agents, issued to them and received from them, followed over time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::{
    runtime::Builder,
    time::{MissedTickBehavior, interval},
};

use crate::metrics::HttpPort;

/// The time between two readings.
const LOOK: Duration = Duration::from_millis(10);

/// Counts since the operator's start, or since an earlier reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// States pushed to agents.
    pub(crate) pushed: u64,
    /// States acknowledged by agents.
    pub(crate) acknowledged: u64,
    /// X509-SVIDs issued.
    pub(crate) issued: u64,
}

impl Counts {
    pub(crate) async fn read(port: HttpPort) -> Result<Self> {
        let metrics = port.metrics().await?;
        let count = |name| metrics.value(name).map(|value| value as u64);
        Ok(Self {
            pushed: count("countersign_states_pushed_total")?,
            acknowledged: count("countersign_acknowledgements_total")?,
            issued: count("countersign_issued_total{kind=\"X509\"}")?,
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            pushed: self.pushed.saturating_sub(before.pushed),
            acknowledged: self.acknowledged.saturating_sub(before.acknowledged),
            issued: self.issued.saturating_sub(before.issued),
        }
    }

    /// Whether each count is at least that of `other`.
    fn has_reached(self, other: Self) -> bool {
        self.pushed >= other.pushed && self.acknowledged >= other.acknowledged && self.issued >= other.issued
    }
}

/// Readings after a change, each with the time since the change.
#[derive(Debug, Default)]
pub(crate) struct Timeline(Vec<(Duration, Counts)>);

impl Timeline {
    /// Follows the counts from a change at `begun` until they have grown by `wanted`, for at most `timeout`.
    ///
    /// It reads on a thread of its own: on the runtime of this program a reading would wait for the work of thousands of agents. A
    /// reading is timed at its end, so a milestone is never earlier than what it stands for.
    pub(crate) async fn follow(
        port: HttpPort,
        begun: Instant,
        before: Counts,
        wanted: Counts,
        timeout: Duration,
    ) -> Result<Self> {
        let follow = async move {
            let (mut timeline, mut tick) = (Self::default(), interval(LOOK));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let counts = Counts::read(port).await?.since(before);
                timeline.0.push((begun.elapsed(), counts));
                if counts.has_reached(wanted) {
                    return Ok(timeline);
                }
                if begun.elapsed() > timeout {
                    bail!("{timeout:?} after the change the operator counts {counts:?} instead of {wanted:?}");
                }
            }
        };
        tokio::task::spawn_blocking(|| Builder::new_current_thread().enable_all().build()?.block_on(follow)).await?
    }

    /// The last reading.
    pub(crate) fn end(&self) -> Counts {
        self.0.last().map(|(_, counts)| *counts).unwrap_or_default()
    }

    /// When a count first was at least `wanted`.
    pub(crate) fn reached(&self, count: impl Fn(&Counts) -> u64, wanted: u64) -> Option<Duration> {
        self.0.iter().find(|(_, counts)| count(counts) >= wanted).map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Timeline};
    use std::time::Duration;

    fn acknowledged(count: u64) -> Counts {
        Counts { acknowledged: count, ..Counts::default() }
    }

    #[test]
    fn a_count_is_reached_at_the_first_reading_that_has_it() {
        let readings = [(10, 0), (20, 3), (30, 3), (40, 7)];
        let readings = readings.map(|(millis, count)| (Duration::from_millis(millis), acknowledged(count)));
        let timeline = Timeline(readings.to_vec());
        let reached = |wanted| timeline.reached(|counts| counts.acknowledged, wanted);
        assert_eq!(reached(1), Some(Duration::from_millis(20)));
        assert_eq!(reached(4), Some(Duration::from_millis(40)));
        assert_eq!(reached(8), None);
        assert_eq!(timeline.end(), acknowledged(7));
    }

    #[test]
    fn every_count_must_be_reached() {
        let wanted = Counts { pushed: 2, acknowledged: 2, issued: 2 };
        let now = Counts { pushed: 15, acknowledged: 12, issued: 11 };
        assert!(now.since(Counts { pushed: 10, acknowledged: 10, issued: 9 }).has_reached(wanted));
        assert!(!now.since(Counts { pushed: 10, acknowledged: 10, issued: 10 }).has_reached(wanted));
        assert!(!now.since(Counts { pushed: 10, acknowledged: 11, issued: 9 }).has_reached(wanted));
        assert!(!now.since(Counts { pushed: 14, acknowledged: 10, issued: 9 }).has_reached(wanted));
    }
}
