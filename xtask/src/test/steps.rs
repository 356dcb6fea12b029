//! Steps with the time each took and its time budget.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::progress::say;

/// The steps that ran.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<Step>);

#[derive(Debug)]
struct Step {
    name: &'static str,
    took: Duration,
    /// The time budget on two processors with nothing built before, in seconds. Exceeding it is no failure.
    budget: u64,
    passed: bool,
}

impl Steps {
    /// Runs a step with a budget in seconds.
    pub(super) fn take<T>(&mut self, name: &'static str, budget: u64, step: impl FnOnce() -> Result<T>) -> Result<T> {
        say(format!("\n=== {name}"));
        let started = Instant::now();
        let outcome = step();
        self.0.push(Step { name, took: started.elapsed(), budget, passed: outcome.is_ok() });
        outcome.with_context(|| format!("the step `{name}` failed"))
    }

    /// Prints each step's result, time and budget, and their sums.
    pub(super) fn summary(&self) {
        say("\n=== summary (seconds taken, of the budget for two processors with nothing built before)");
        for Step { name, took, budget, passed } in &self.0 {
            let outcome = if *passed { "ok    " } else { "FAILED" };
            let beyond = if took.as_secs() > *budget { "  beyond" } else { "" };
            say(format!("  {outcome} {:>7.1} of {budget:>4}  {name}{beyond}", took.as_secs_f64()));
        }
        let (took, budget) =
            self.0.iter().fold((0.0, 0), |(took, budget), step| (took + step.took.as_secs_f64(), budget + step.budget));
        say(format!("         {took:>7.1} of {budget:>4}  in all"));
    }
}
