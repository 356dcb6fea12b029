//! `cargo xtask test`: everything that CI runs, cheapest first. The first failure ends it; clusters are always ended.

mod clusters;
mod features;
mod licences;
mod steps;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use countersign_contract::environment::test::{GO_HARNESS, GO_ORACLE};

use crate::cluster;
use crate::e2e::Programs;
use crate::progress::say;
use crate::sh::{Run as _, cmd};
use crate::{codegen, conformance, fuzz};
use steps::Steps;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave out the end-to-end tests.
    #[arg(long, conflicts_with = "only_e2e")]
    skip_e2e: bool,
    /// Run only the end-to-end tests; with FILTER, only those whose names contain it, on one cluster.
    #[arg(long, value_name = "FILTER", num_args = 0..=1, default_missing_value = "")]
    only_e2e: Option<String>,
    /// Keep the clusters running, and reuse them next time.
    #[arg(long)]
    keep: bool,
    /// Use released images, which take minutes longer to build.
    #[arg(long)]
    release: bool,
}

/// Runs the steps and ends with a summary.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let mut steps = Steps::default();
    let outcome = all(root, options, &mut steps);
    steps.summary();
    outcome
}

fn all(root: &Path, options: &Options, steps: &mut Steps) -> Result<()> {
    if options.only_e2e.is_none() {
        let cargo = |args: &[&str]| cmd("cargo", args).current_dir(root).run();
        steps.take("formatting", 5, || cargo(&["fmt", "--all", "--check"]))?;
        let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps.take("lints", 130, || cargo(&lints))?;
        steps.take("each feature by itself", 90, || features::check(root))?;
        steps.take("generated files", 5, || codegen::check_protocols(root))?;
        steps.take("licences, sources, advisories", 80, || licences::check(root))?;
    }
    let programs = steps.take("build of all tests", 300, || Programs::build(root))?;
    if options.only_e2e.is_none() {
        let go_spiffe = steps.take("programs of go-spiffe", 20, || {
            Ok([(GO_HARNESS, conformance::go_harness(root)?), (GO_ORACLE, conformance::go_oracle(root)?)])
        })?;
        steps.take("unit, property and integration tests", 120, || without_cluster(&programs, &go_spiffe))?;
        steps.take("examples of the documentation", 20, || {
            cmd("cargo", ["test", "--quiet", "--workspace", "--doc"]).current_dir(root).run()
        })?;
        steps.take("fuzzing, briefly", 210, || fuzz::briefly(root))?;
    }
    if options.skip_e2e {
        return Ok(());
    }
    let outcome = clusters::run(root, options, steps, &programs);
    if !options.keep && !cluster::is_given(root) {
        steps.take("end of the clusters, of which nothing is left", 30, || clusters::end(root))?;
    }
    outcome
}

/// One program after the other: each uses all processors. The conformance suite pairs and compares our client with go-spiffe.
fn without_cluster(programs: &Programs, go_spiffe: &[(&str, PathBuf)]) -> Result<()> {
    let mut failed = Vec::new();
    for program in programs.without_cluster() {
        let begun = Instant::now();
        let outcome = program.command().envs(go_spiffe.iter().map(|(name, program)| (name, program))).read();
        let took = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(text) => say(format!("  ok     {program} ({took:.1} s)\n{}", result(&text))),
            Err(error) => {
                say(format!("  FAILED {program} ({took:.1} s)\n{error:#}"));
                failed.push(program.to_string());
            }
        }
    }
    if !failed.is_empty() {
        bail!("tests failed in {}", failed.join(", "));
    }
    Ok(())
}

/// The line with the result, as every test program ends its output.
fn result(text: &str) -> &str {
    text.lines().rev().find(|line| line.starts_with("test result: ok. ")).unwrap_or("no tests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_a_test_program_is_found() {
        let text = "running 2 tests\n..\ntest result: ok. 2 passed; 0 failed; 0 ignored; finished in 0.00s\n";
        assert_eq!(result(text), "test result: ok. 2 passed; 0 failed; 0 ignored; finished in 0.00s");
        assert_eq!(result("bench"), "no tests");
    }
}
