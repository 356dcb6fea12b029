//! Progress output: one line when a step starts, and one with its duration when it ends.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the one place that talks to the person at the terminal"
)]

use std::fmt::Display;
use std::time::Instant;

/// A running step.
#[derive(Debug)]
pub(crate) struct Progress {
    step: String,
    started: Instant,
}

impl Progress {
    /// Reports that a step starts.
    pub(crate) fn start(step: impl Display) -> Self {
        println!("==> {step}");
        Self { step: step.to_string(), started: Instant::now() }
    }

    /// Prints a note about the running step.
    pub(crate) fn note(&self, what: impl Display) {
        println!("    {what}");
    }

    /// Reports that the step has succeeded.
    pub(crate) fn done(self, result: impl Display) {
        println!("    {}: {result} ({:.1} s)", self.step, self.started.elapsed().as_secs_f64());
    }
}

/// Prints a line.
pub(crate) fn say(line: impl Display) {
    println!("{line}");
}

/// Prints an error: the outermost step first, each cause on its own line.
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}
