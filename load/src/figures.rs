//! Printing of figures, and statistics of many samples.

use std::time::{Duration, Instant};

use serde_json::json;

/// Prints each figure at once.
#[derive(Debug)]
pub(crate) struct Figures {
    json: bool,
}

impl Figures {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints a figure.
    pub(crate) fn print(&self, name: &str, value: f64, unit: &str) {
        let value = (value * 1000.0).round() / 1000.0;
        if self.json {
            println!("{}", json!({"name": name, "value": value, "unit": unit}));
        } else {
            println!("{name:<60} {value:>12.3} {unit}");
        }
    }
}

/// Prints progress on standard error.
pub(crate) fn say(what: impl std::fmt::Display) {
    eprintln!("    {what}");
}

/// Prints progress from time to time.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    total: usize,
    begun: Instant,
    said: Instant,
}

impl Progress {
    pub(crate) fn new(what: impl Into<String>, total: usize) -> Self {
        Self { what: what.into(), total, begun: Instant::now(), said: Instant::now() }
    }

    pub(crate) fn at(&mut self, done: usize) {
        if self.said.elapsed() > Duration::from_secs(5) {
            self.said = Instant::now();
            say(format_args!("{}: {done} of {}, {:.0} a second", self.what, self.total, self.rate(done)));
        }
    }

    pub(crate) fn done(self, done: usize) {
        let (took, rate) = (self.begun.elapsed().as_secs_f64(), self.rate(done));
        say(format_args!("{}: {done} in {took:.1} s, {rate:.0} a second", self.what));
    }

    fn rate(&self, done: usize) -> f64 {
        done as f64 / self.begun.elapsed().as_secs_f64().max(0.001)
    }
}

/// Samples of a duration, for percentiles.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn extend(&mut self, others: impl IntoIterator<Item = Duration>) {
        self.0.extend(others);
    }

    pub(crate) fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The percentile `share` in milliseconds; 0 without samples.
    pub(crate) fn millis(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.0.get(at).map_or(0.0, |sample| sample.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;
    use std::time::Duration;

    #[test]
    fn a_share_is_the_sample_at_its_rank() {
        let mut samples = Samples::default();
        assert_eq!(samples.millis(0.5), 0.0);
        samples.extend((1..=101).rev().map(Duration::from_millis));
        let near = |share, wanted: f64| (samples_at(share) - wanted).abs() < 1e-9;
        fn samples_at(share: f64) -> f64 {
            let mut samples = Samples::default();
            samples.extend((1..=101).map(Duration::from_millis));
            samples.millis(share)
        }
        assert!(near(0.0, 1.0) && near(0.5, 51.0) && near(0.99, 100.0) && near(1.0, 101.0));
        assert_eq!(samples.len(), 101);
    }
}
