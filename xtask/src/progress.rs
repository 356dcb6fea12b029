//! Progress output: one line when a step starts, and one with its duration when it ends.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the one place that talks to the person at the terminal"
)]

use std::fmt::Display;
use std::time::Instant;

/// One step under way.
#[derive(Debug)]
pub(crate) struct Progress {
    step: String,
    started: Instant,
}

impl Progress {
    /// Says that a step starts.
    pub(crate) fn start(step: impl Display) -> Self {
        println!("==> {step}");
        Self { step: step.to_string(), started: Instant::now() }
    }

    /// Says something about the step under way.
    pub(crate) fn note(&self, what: impl Display) {
        println!("    {what}");
    }

    /// Says that the step has ended well.
    pub(crate) fn done(self, result: impl Display) {
        println!("    {}: {result} ({:.1} s)", self.step, self.started.elapsed().as_secs_f64());
    }
}

/// A line of its own.
pub(crate) fn say(line: impl Display) {
    println!("{line}");
}

/// What went wrong: the outermost step first, each cause on a line below.
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}
