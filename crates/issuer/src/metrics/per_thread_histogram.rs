//! How often something was done and how long it took, counted without anything that threads share: each thread has counts of
//! its own, and whoever reads them sums them up. Issuing counts here, on all processors at the same time.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use thread_local::ThreadLocal;

/// Upper bounds, seconds: from 50 µs, which an issue costs at least, to the second a person would notice.
const BOUNDS: [f64; 11] = [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.25, 1.0];

/// Durations by size.
#[derive(Debug, Default)]
pub(super) struct PerThreadHistogram(ThreadLocal<Counts>);

/// Of one thread; on cache lines of its own, also where these are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    /// One for each bound, and one for what is longer than all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// Of all threads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summed {
    buckets: [u64; BOUNDS.len() + 1],
    took: Duration,
}

impl PerThreadHistogram {
    pub(super) fn observe(&self, took: Duration) {
        let counts = self.0.get_or_default();
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = counts.buckets.get(bucket) {
            add(count, 1);
        }
        add(&counts.nanoseconds, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn sum(&self) -> Summed {
        let mut summed = Summed::default();
        for counts in &self.0 {
            for (sum, count) in summed.buckets.iter_mut().zip(&counts.buckets) {
                *sum += count.load(Ordering::Relaxed);
            }
            summed.took += Duration::from_nanos(counts.nanoseconds.load(Ordering::Relaxed));
        }
        summed
    }
}

/// Its own thread alone writes a count, so nothing is lost between the two.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Summed {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(super) fn encode_histogram(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        // The library sums the buckets up, and names the last one `+Inf`.
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.buckets).collect();
        encoder.encode_histogram::<NoLabelSet>(self.took.as_secs_f64(), self.count(), &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS, PerThreadHistogram};
    use std::{thread, time::Duration};

    #[test]
    fn what_threads_noted_is_summed_also_of_those_that_ended() {
        let spans = PerThreadHistogram::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| spans.observe(Duration::from_micros(100))));
            }
        });
        spans.observe(Duration::from_secs(7));
        let summed = spans.sum();
        assert_eq!((summed.count(), summed.took), (4001, Duration::from_millis(7_400)));
        assert_eq!((summed.buckets[1], summed.buckets[BOUNDS.len()]), (4000, 1));
    }

    #[test]
    fn a_span_counts_for_the_first_bound_it_does_not_exceed() {
        let spans = PerThreadHistogram::default();
        for (nanoseconds, bucket) in [(0, 0), (50_000, 0), (50_001, 1), (1_000_000_000, 10), (1_000_000_001, 11)] {
            let before = spans.sum().buckets[bucket];
            spans.observe(Duration::from_nanos(nanoseconds));
            assert_eq!(spans.sum().buckets[bucket], before + 1, "{nanoseconds} ns");
        }
    }
}
