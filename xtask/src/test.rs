//! `cargo xtask test`: everything that CI runs, cheapest first; a failure ends it, and a cluster is ended in any case.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::{self, Cluster};
use crate::images::{self, Group};
use crate::logs::Keeper;
use crate::progress::say;
use crate::sh::{Run as _, cmd};
use crate::{build, codegen, deps, fuzz, product};

/// A cluster of its own, beside that of `up`.
const CLUSTER: &str = "test";

/// Its version decides what is checked, so it is pinned.
const CARGO_DENY: &str = "0.20.2";

/// Each test has namespaces of its own and mostly waits.
const E2E_THREADS: &str = "--test-threads=4";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave the end-to-end tests out.
    #[arg(long, conflicts_with = "only_e2e")]
    skip_e2e: bool,
    /// Run the end-to-end tests only; with FILTER those whose names contain it.
    #[arg(long, value_name = "FILTER", num_args = 0..=1, default_missing_value = "")]
    only_e2e: Option<String>,
    /// Leave the cluster up, and use it again the next time.
    #[arg(long)]
    keep: bool,
}

/// Steps taken, with the time each took.
#[derive(Debug, Default)]
struct Steps(Vec<(String, Duration, bool)>);

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
        steps.take("formatting", || cargo(&["fmt", "--all", "--check"]))?;
        let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps.take("lints", || cargo(&lints))?;
        steps.take("generated files", || codegen::check_protocols(root))?;
        steps.take("licences, sources, advisories", || deny(root))?;
        let tests = ["test", "--workspace", "--exclude", "countersign-e2e"];
        steps.take("unit and property tests", || cargo(&tests))?;
        steps.take("fuzzing, briefly", || fuzz::briefly(root))?;
    }
    if options.skip_e2e {
        return Ok(());
    }
    let outcome = end_to_end(root, options, steps);
    if let (Err(_), Ok(cluster)) = (&outcome, cluster::find(root, CLUSTER)) {
        keep_logs(root, &cluster);
    }
    if !options.keep && !cluster::is_given(root) {
        steps.take("end the cluster, of which nothing is left", || cluster::down(root, CLUSTER))?;
    }
    outcome
}

fn end_to_end(root: &Path, options: &Options, steps: &mut Steps) -> Result<()> {
    deps::for_tests()?;
    if !options.keep && !cluster::is_given(root) {
        cluster::down(root, CLUSTER)?;
    }
    let archives = steps.take("images", || images::make(root, &[Group::Product, Group::Demo, Group::Test]))?;
    let cluster = steps.take("cluster", || cluster::up(root, CLUSTER))?;
    let changed = steps.take("install", || {
        let changed = cluster.load(&archives)?;
        product::install(root, &cluster, changed).map(|()| changed)
    })?;
    if options.only_e2e.as_deref().unwrap_or_default().is_empty() {
        // Before the tests, the last of which takes the product away.
        steps.take("samples and demo, as `up` shows them and `down` takes them away", || {
            product::show(root, &cluster.kubectl, changed)?;
            product::hide(root, &cluster.kubectl)
        })?;
    }
    let keeper = steps.take("follow all logs, at debug level", || {
        Keeper::start(root, |command| environment(command, root, &cluster).map(drop))
    })?;
    let outcome = steps.take("end-to-end tests", || {
        let mut command = cmd("cargo", ["test", "--package", "countersign-e2e", "--no-fail-fast", "--", E2E_THREADS]);
        command.args(options.only_e2e.as_deref().filter(|filter| !filter.is_empty()));
        environment(&mut command, root, &cluster)?.current_dir(root).run()
    });
    drop(keeper);
    outcome
}

/// All that the tests know of the cluster.
pub(crate) fn environment<'a>(command: &'a mut Command, root: &Path, cluster: &Cluster) -> Result<&'a mut Command> {
    let search = std::env::var("PATH").unwrap_or_default();
    command
        .env("KUBECONFIG", &cluster.kubectl.kubeconfig)
        .env("PATH", format!("{}:{search}", build::bin(root).display()));
    if let Some(log) = cluster.audit_log() {
        command.env("COUNTERSIGN_AUDIT_LOG", log);
    }
    if let Some(fault) = cluster.fault_command()? {
        command.env("COUNTERSIGN_FAULT", fault);
    }
    Ok(command)
}

/// Without a way to the advisories' repository CI must still pass: then everything but they is checked, and it is said so.
fn deny(root: &Path) -> Result<()> {
    let tools = root.join("target/tools");
    let program = tools.join("bin/cargo-deny");
    let right = cmd(&program, ["--version"]).read().is_ok_and(|text| text.ends_with(CARGO_DENY));
    if !right {
        say(format!("    installing cargo-deny {CARGO_DENY} into target/tools, once"));
        cmd("cargo", ["install", "--quiet", "--locked", "--debug", "cargo-deny", "--version", CARGO_DENY, "--root"])
            .arg(&tools)
            // Nobody debugs it, and without it is built sooner.
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .run()
            .context("installing cargo-deny")?;
    }
    let check = |what: &[&str]| cmd(&program, ["--log-level", "error", "check"]).args(what).current_dir(root).run();
    check(&["bans", "licenses", "sources"])?;
    let fetched = cmd(&program, ["--log-level", "error", "fetch", "db"]).current_dir(root).succeeds();
    if !fetched {
        say("    the advisory database cannot be reached from here: advisories were NOT checked");
        return Ok(());
    }
    check(&["--disable-fetch", "advisories"])
}

/// What a person needs to find out why: the components' and the pods' logs, and the objects, in `target/cluster-logs`.
fn keep_logs(root: &Path, cluster: &Cluster) {
    let dir = root.join("target/cluster-logs");
    if let Err(error) = try_keep_logs(&dir, cluster) {
        say(format!("the cluster's logs could not be kept: {error:#}"));
        return;
    }
    say(format!("the cluster's logs are in {}", dir.display()));
}

fn try_keep_logs(dir: &Path, cluster: &Cluster) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir)?;
    for what in ["events", "pods", "trustdomains,workloadidentities"] {
        let list = cluster.kubectl.cmd(&["get", what, "--all-namespaces", "--output=yaml"]).read();
        std::fs::write(dir.join(format!("{what}.yaml")), list.unwrap_or_else(|error| error.to_string()))?;
    }
    match cluster.logs() {
        Some(logs) => cmd("cp", ["--archive"]).arg(logs).arg(dir.join("node")).quiet(),
        None => {
            cluster.kubectl.cmd(&["cluster-info", "dump", "--all-namespaces", "--output-directory"]).arg(dir).quiet()
        }
    }
}

impl Steps {
    fn take<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        say(format!("\n=== {name}"));
        let started = Instant::now();
        let outcome = step();
        self.0.push((name.to_owned(), started.elapsed(), outcome.is_ok()));
        outcome.with_context(|| format!("the step `{name}` failed"))
    }

    fn summary(&self) {
        say("\n=== summary");
        for (name, took, well) in &self.0 {
            say(format!("  {} {name} ({:.1} s)", if *well { "ok    " } else { "FAILED" }, took.as_secs_f64()));
        }
    }
}
