//! `cargo xtask soak`: the long tests of faults, one after the other on each of two clusters of their own; the counts go into
//! `docs/reports/soak.md`.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::images::{self, Group};
use crate::progress::say;
use crate::sh::{Run as _, cmd};
use crate::{deps, product, test};

/// Clusters of its own, beside those of `up` and `test`. Two, since what is broken is broken for a whole cluster, and while it
/// is the tests mostly wait.
const CLUSTERS: [&str; 2] = ["soak", "soak-2"];

/// Keeps all processors busy by itself: last, when little else can be hurt.
const LAST: &str = "soak_a_thousand_pods_are_created_at_once";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long parts are killed at random.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Only tests whose names contain this; the report is shown and not written.
    #[arg(long)]
    only: Option<String>,
    /// Leave the clusters up, and use them again the next time.
    #[arg(long)]
    keep: bool,
}

/// A test: the file of `e2e/tests`, and its name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    file: String,
    name: String,
}

/// What became of a test.
#[derive(Debug)]
struct Outcome {
    test: Test,
    passed: bool,
    took: Duration,
    /// As the test wrote them down.
    counts: Vec<Value>,
}

/// Runs them all; those that fail do not end it.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if cluster::is_given(root) {
        bail!("KUBECONFIG is set: a soak breaks its cluster, and so runs on one of its own only; unset it");
    }
    deps::for_tests()?;
    let only = options.only.as_deref().unwrap_or_default();
    let mut tests: Vec<Test> = tests(root)?.into_iter().filter(|test| test.name.contains(only)).collect();
    if tests.is_empty() {
        bail!("no test's name contains `{only}`");
    }
    tests.sort_by_key(|test| test.name == LAST);
    let names = CLUSTERS.get(..tests.len()).unwrap_or(&CLUSTERS);
    let outcome = soak(root, options, names, tests);
    let ended = if options.keep { Ok(()) } else { names.iter().try_for_each(|name| cluster::down(root, name)) };
    let outcomes = outcome?;
    let report = report(root, options, &outcomes)?;
    say(&report);
    if options.only.is_none() {
        let path = root.join("docs/reports/soak.md");
        fs::write(&path, report).with_context(|| format!("writing {}", path.display()))?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    if failed > 0 {
        bail!("{failed} of {} tests failed", outcomes.len());
    }
    // Not before the report: what is left of a cluster must not take an hour's counts with it.
    ended
}

/// Each cluster takes the next test when it is done with one.
fn soak(root: &Path, options: &Options, names: &[&str], tests: Vec<Test>) -> Result<Vec<Outcome>> {
    let archives = images::make(root, &[Group::Product, Group::Demo])?;
    let mut clusters = Vec::new();
    for name in names {
        if !options.keep {
            cluster::down(root, name)?;
        }
        let cluster = cluster::up(root, name)?;
        let changed = cluster.load(&archives)?;
        product::install(root, &cluster, changed)?;
        clusters.push((name, cluster));
    }
    let queue = Mutex::new(VecDeque::from(tests));
    let next = || queue.lock().ok()?.pop_front();
    let one_after_the_other = |name: &str, cluster: &Cluster| {
        let run = |test: Test| {
            say(format!("\n=== {} on {name}", test.name));
            test.run(root, options, name, cluster)
        };
        std::iter::from_fn(next).map(run).collect::<Result<Vec<Outcome>>>()
    };
    let ended: Vec<Result<Vec<Outcome>>> = thread::scope(|scope| {
        let work = &one_after_the_other;
        let running: Vec<_> = clusters.iter().map(|(name, cluster)| scope.spawn(move || work(name, cluster))).collect();
        let panicked = |_| Err(anyhow!("a thread panicked"));
        running.into_iter().map(|running| running.join().unwrap_or_else(panicked)).collect()
    });
    let mut outcomes: Vec<Outcome> = ended.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    outcomes.sort_by(|one, other| one.test.cmp(&other.test));
    Ok(outcomes)
}

/// The tests that `cargo xtask test` leaves out.
fn tests(root: &Path) -> Result<Vec<Test>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join("e2e/tests")).context("reading e2e/tests")? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "rs") && has_long_tests(&path)? {
            files.push(stem);
        }
    }
    files.sort();
    let mut tests = Vec::new();
    for file in files {
        let list = cargo(root, &file).args(["--ignored", "--list"]).read()?;
        tests.extend(names(&list).map(|name| Test { file: file.clone(), name: name.to_owned() }));
    }
    Ok(tests)
}

/// Whether a test of this file is left out because it is long. Others need not be compiled to know.
fn has_long_tests(path: &Path) -> Result<bool> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.contains("#[ignore = \"soak"))
}

/// The tests in what the test program lists.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.strip_suffix(": test"))
}

fn cargo(root: &Path, file: &str) -> std::process::Command {
    let mut command = cmd("cargo", ["test", "--quiet", "--package", "countersign-e2e", "--test", file, "--"]);
    command.current_dir(root);
    command
}

impl Test {
    fn run(self, root: &Path, options: &Options, name: &str, cluster: &Cluster) -> Result<Outcome> {
        let counts = root.join(format!("target/{name}-counts.jsonl"));
        fs::write(&counts, "").with_context(|| format!("writing {}", counts.display()))?;
        let mut command = cargo(root, &self.file);
        command.args(["--ignored", "--exact", "--nocapture", &self.name]);
        test::environment(&mut command, root, cluster)?
            .env("COUNTERSIGN_COUNTS", &counts)
            .env("COUNTERSIGN_SOAK_MINUTES", options.minutes.to_string());
        let begun = Instant::now();
        let ended = command.run();
        if let Err(error) = &ended {
            say(format!("{error:#}"));
        }
        let text = fs::read_to_string(&counts).with_context(|| format!("reading {}", counts.display()))?;
        let counts = text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("reading counts")?;
        Ok(Outcome { test: self, passed: ended.is_ok(), took: begun.elapsed(), counts })
    }
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
    let Outcome { test, passed, took, counts } = outcome;
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
        test.name,
        if *passed { "yes" } else { "**no**" },
        took.as_secs(),
        counts.join("; ")
    )
}

/// Cores, memory and system, for a person.
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
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_says_what_was_counted_and_a_failure_is_seen() {
        let test = Test { file: "faults_api".to_owned(), name: "soak_it".to_owned() };
        let counts = vec![json!({ "test": "etcd gone", "counts": { "failed": 0, "new_pods": 3 } })];
        let mut outcome = Outcome { test, passed: true, took: Duration::from_secs(61), counts };
        assert_eq!(row(&outcome), "| etcd gone | `soak_it` | yes | 61 s | failed 0, new pods 3 |\n");
        outcome.passed = false;
        assert!(row(&outcome).contains("**no**"));
    }

    #[test]
    fn long_tests_are_found_in_whatever_file_they_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, long) in [("faults_api", true), ("issuer", true), ("hot_path", false)] {
            let path = root.join(format!("e2e/tests/{file}.rs"));
            assert_eq!(has_long_tests(&path).expect("a test file"), long, "{file}");
        }
        // Where nobody looks for them.
        let mut folders = vec![root.join("e2e/tests/undisturbed")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("a file or folder").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                assert!(
                    !has_long_tests(&path).expect("a test file"),
                    "{}: a soak belongs in a file of e2e/tests",
                    path.display()
                );
            }
        }
    }

    #[test]
    fn the_test_that_comes_last_is_there() {
        let herd = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/tests/faults_herd.rs");
        assert!(fs::read_to_string(herd).expect("a test file").contains(&format!("fn {LAST}(")));
    }

    #[test]
    fn a_test_programs_list_is_read() {
        let list = "a_b: test\nc: benchmark\n\n1 test, 1 benchmark\n";
        assert_eq!(names(list).collect::<Vec<_>>(), ["a_b"]);
    }
}
