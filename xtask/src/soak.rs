//! `cargo xtask soak`: runs the long fault tests one after the other on each of two clusters, and writes the results to
//! `docs/reports/soak.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use countersign_contract::environment::test::SOAK_MINUTES;
use serde_json::Value;

use crate::cluster;
use crate::e2e::{DISTURBING, FEDERATED, Lane, Outcome, Programs, Test, UNDISTURBED, share};
use crate::images::{self, Build, Group};
use crate::progress::say;
use crate::sh::{Run as _, cmd};
use crate::{deps, product};

/// The clusters of the soak tests, besides those of `up` and `test`. Two, because a fault affects a whole cluster and the
/// tests mostly wait.
const CLUSTERS: [&str; 2] = ["soak", "soak-2"];

/// Uses all processors: runs last, when it disturbs few other tests.
const LAST: &str = "herd::soak_a_thousand_pods_are_created_at_once";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Duration of random kills, in minutes.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Run only tests whose names contain this, or one of several; the report is printed and not written.
    #[arg(long)]
    only: Vec<String>,
    /// Keep the clusters running, and reuse them next time.
    #[arg(long)]
    keep: bool,
}

/// Runs all tests; failures do not end the run.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if cluster::is_given(root) {
        bail!("KUBECONFIG is set: a soak breaks its cluster, and so runs on one of its own only; unset it");
    }
    deps::for_tests()?;
    let programs = Programs::build(root)?;
    let mut tests = [UNDISTURBED, DISTURBING, FEDERATED]
        .map(|program| programs.list(program, true))
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .concat();
    if tests.iter().all(|test| test.name != LAST) {
        bail!("`{LAST}`, which is to be run last, is no test");
    }
    tests.retain(|test| options.only.is_empty() || options.only.iter().any(|only| test.name.contains(only)));
    if tests.is_empty() {
        bail!("no test's name contains `{}`", options.only.join("` or `"));
    }
    tests.sort_by_key(|test| test.name == LAST);
    let takes_both = tests.iter().any(|test| test.program == FEDERATED);
    let names = CLUSTERS.get(..tests.len()).filter(|_| !takes_both).unwrap_or(&CLUSTERS);
    let outcome = soak(root, options, names, &programs, tests);
    let ended = if options.keep { Ok(()) } else { names.iter().try_for_each(|name| cluster::down(root, name)) };
    let outcomes = outcome?;
    let report = report(root, options, &outcomes)?;
    say(&report);
    if options.only.is_empty() {
        let path = root.join("docs/reports/soak.md");
        fs::write(&path, report).with_context(|| format!("writing {}", path.display()))?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    if failed > 0 {
        bail!("{failed} of {} tests failed", outcomes.len());
    }
    // After the report: a cluster that cannot be ended must not lose an hour of results.
    ended
}

/// Each cluster takes the next test when it is free.
fn soak(root: &Path, options: &Options, names: &[&str], programs: &Programs, tests: Vec<Test>) -> Result<Vec<Outcome>> {
    let archives = images::make(root, &[Group::Product, Group::Demo, Group::Test], Build::Release)?;
    let mut lanes = Vec::new();
    for name in names {
        if !options.keep {
            cluster::down(root, name)?;
        }
        let cluster = cluster::up(root, name)?;
        let changed = cluster.load(&archives)?;
        product::install(root, &cluster, changed)?;
        let variables = vec![(SOAK_MINUTES, options.minutes.to_string())];
        lanes.push(Lane { root, name, cluster, programs, variables });
    }
    let (federated, others): (Vec<_>, Vec<_>) = tests.into_iter().partition(|test| test.program == FEDERATED);
    let mut outcomes = share(&lanes, others, |_| Ok(Vec::new()))?;
    if let [here, there] = &lanes[..] {
        let here = here.beside(there)?;
        let federated = federated.iter().map(|test| here.run_one(test));
        outcomes.extend(federated.collect::<Result<Vec<_>>>()?);
    }
    outcomes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(outcomes)
}

fn report(root: &Path, options: &Options, outcomes: &[Outcome]) -> Result<String> {
    let git = |args: &[&str]| cmd("git", args).current_dir(root).read();
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let mut text = format!(
        "# Soak, {}\n\n\
         `cargo xtask soak --minutes {}`, on two clusters at a time, on a machine with {}, commit {commit}{}. Written by that command.\n\n\
         Each row is a test of `e2e/tests`; it passed only if no call failed, every credential seen was that of the pod's own \
         account, and all went on without a hand.\n\n\
         | Fault | Test | Passed | Took | Counted |\n|---|---|---|---|---|\n",
        jiff::Zoned::now().date(),
        options.minutes,
        machine()?,
        if changed { " with changes" } else { "" },
    );
    for outcome in outcomes {
        text.push_str(&row(outcome));
    }
    Ok(text)
}

fn row(outcome: &Outcome) -> String {
    let Outcome { name, passed, took, counts } = outcome;
    let told = |count: &Value| {
        let counts = count.get("counts").and_then(Value::as_object);
        let each = counts.into_iter().flatten().map(|(name, value)| format!("{} {value}", name.replace('_', " ")));
        each.collect::<Vec<_>>().join(", ")
    };
    let faults: Vec<_> = counts.iter().filter_map(|count| count.get("test")?.as_str()).collect();
    let counts: Vec<_> = counts.iter().map(told).collect();
    format!(
        "| {} | `{}` | {} | {} s | {} |\n",
        faults.join("; "),
        name,
        if *passed { "yes" } else { "**no**" },
        took.as_secs(),
        counts.join("; ")
    )
}

/// Cores, memory and system of this machine, for the report.
fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism().context("counting cores")?;
    let memory = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next()?.parse().ok())
        .context("/proc/meminfo has no MemTotal")?;
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("an unknown system");
    Ok(format!("{cores} cores, {} GiB, {}", kib.div_ceil(1024 * 1024), system.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_what_was_counted_and_a_failure_is_seen() {
        let name = "disturbing::api::soak_it".to_owned();
        let counts = vec![json!({ "test": "etcd gone", "counts": { "failed": 0, "new_pods": 3 } })];
        let mut outcome = Outcome { name, passed: true, took: Duration::from_secs(61), counts };
        assert_eq!(row(&outcome), "| etcd gone | `disturbing::api::soak_it` | yes | 61 s | failed 0, new pods 3 |\n");
        outcome.passed = false;
        assert!(row(&outcome).contains("**no**"));
    }
}
