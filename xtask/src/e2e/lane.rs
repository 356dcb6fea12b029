//! A cluster and the tests that run on it. Several lanes take tests from one queue, each the next one when it is free.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use countersign_contract::environment::test::{AUDIT_LOG, COUNTS, FAULT, PEER, PEER_FAULT};
use serde_json::Value;

use super::{Program, Programs, Test};
use crate::build;
use crate::cluster::Cluster;
use crate::progress::say;
use crate::sh::{Run as _, cmd};

/// The package's folder and the program of `kubectl countersign`.
const CLI: (&str, &str) = ("cli", "kubectl-countersign");

/// Printed by a test that did not run because the cluster lacks a requirement.
const NOT_RUN: &str = "NOT RUN";

/// A cluster with the product, and the programs that run on it.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    pub(crate) root: &'a Path,
    /// The cluster's name.
    pub(crate) name: &'a str,
    pub(crate) cluster: Cluster,
    pub(crate) programs: &'a Programs,
    /// Additional variables of the tests' environment.
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// The result of a test, or of several that ran as one program.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The test, or the program.
    pub(crate) name: String,
    pub(crate) passed: bool,
    pub(crate) took: Duration,
    /// The counts that the tests reported.
    pub(crate) counts: Vec<Value>,
}

/// Runs `first` on each lane, then lets the lanes take tests until none is left.
pub(crate) fn share<'a>(
    lanes: &[Lane<'a>],
    tests: Vec<Test>,
    first: impl Fn(&Lane<'a>) -> Result<Vec<Outcome>> + Sync,
) -> Result<Vec<Outcome>> {
    let queue = Mutex::new(VecDeque::from(tests));
    let next = || queue.lock().ok()?.pop_front();
    let work = |lane: &Lane<'a>| {
        let mut outcomes = first(lane)?;
        while let Some(test) = next() {
            outcomes.push(lane.run_one(&test)?);
        }
        Ok(outcomes)
    };
    Lane::each(lanes, work).map(|outcomes| outcomes.into_iter().flatten().collect())
}

impl<'a> Lane<'a> {
    /// Runs `work` on all lanes in parallel.
    pub(crate) fn each<T: Send>(lanes: &[Self], work: impl Fn(&Self) -> Result<T> + Sync) -> Result<Vec<T>> {
        let work = &work;
        thread::scope(|scope| {
            let running: Vec<_> = lanes.iter().map(|lane| scope.spawn(move || work(lane))).collect();
            running
                .into_iter()
                .map(|running| running.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
                .collect()
        })
    }

    /// The same lane for tests that also use the cluster of another.
    pub(crate) fn beside(&self, other: &Self) -> Result<Self> {
        let peer = (PEER, other.cluster.kubectl.kubeconfig.display().to_string());
        let fault = other.cluster.fault_command()?.map(|command| (PEER_FAULT, command));
        let variables = self.variables.iter().cloned().chain([peer]).chain(fault).collect();
        Ok(Self { root: self.root, name: self.name, cluster: self.cluster.clone(), programs: self.programs, variables })
    }

    /// Runs one test, also one that is ignored by default.
    pub(crate) fn run_one(&self, test: &Test) -> Result<Outcome> {
        let program = self.programs.end_to_end(test.program)?;
        self.run(program, &test.to_string(), &["--include-ignored", "--nocapture", "--exact", &test.name])
    }

    /// Runs the tests of a program whose names contain `filter`, with `threads` at a time.
    pub(crate) fn run_program(&self, program: &str, filter: &str, threads: usize) -> Result<Outcome> {
        let threads = format!("--test-threads={threads}");
        let mut args = vec![threads.as_str(), "--show-output"];
        args.extend(Some(filter).filter(|filter| !filter.is_empty()));
        let name = [program, filter].join(" ");
        self.run(self.programs.end_to_end(program)?, name.trim_end(), &args)
    }

    fn run(&self, program: &Program, name: &str, args: &[&str]) -> Result<Outcome> {
        let log = self.file(name, "log")?;
        let counts = self.file(name, "counts")?;
        let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        fs::write(&counts, "").with_context(|| format!("writing {}", counts.display()))?;
        let mut command = program.command();
        command.args(args).stdout(output.try_clone()?).stderr(output);
        let plugin = self.programs.program(CLI.0, CLI.1)?.executable().parent().unwrap_or(Path::new("."));
        environment(&mut command, self.root, &self.cluster, Some(plugin))?.env(COUNTS, &counts);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let begun = Instant::now();
        let passed = command.status().with_context(|| format!("starting {name}"))?.success();
        let took = begun.elapsed();
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let outcome = if passed { "ok    " } else { "FAILED" };
        let mut report = format!("  {outcome} {name} on {} ({:.1} s)", self.name, took.as_secs_f64());
        for line in text.lines().filter(|line| line.contains(NOT_RUN)) {
            report.push_str(&format!("\n         {line}"));
        }
        if passed {
            report
                .extend(text.lines().filter(|line| line.starts_with("test result: ")).map(|line| format!("\n{line}")));
        } else {
            report.push_str(&format!("\n{text}"));
        }
        say(report);
        let counts = fs::read_to_string(&counts)?;
        let counts = counts.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("reading counts")?;
        Ok(Outcome { name: name.to_owned(), passed, took, counts })
    }

    /// The file for a test's output or counts.
    fn file(&self, name: &str, extension: &str) -> Result<PathBuf> {
        let folder = self.root.join("target/e2e/tests").join(self.name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder.join(format!("{}.{extension}", name.replace([':', ' '], "_"))))
    }

    /// Saves what is needed to debug a failure: the logs of components and pods, and the objects.
    pub(crate) fn keep_logs(&self) {
        let dir = self.root.join("target/cluster-logs").join(self.name);
        match try_keep_logs(&dir, &self.cluster) {
            Ok(()) => say(format!("the logs of the cluster {} are in {}", self.name, dir.display())),
            Err(error) => say(format!("the logs of the cluster {} could not be kept: {error:#}", self.name)),
        }
    }
}

/// Passes the properties of the cluster to the tests, and the folder of kubectl's plugin.
pub(crate) fn environment<'a>(
    command: &'a mut Command,
    root: &Path,
    cluster: &Cluster,
    plugin: Option<&Path>,
) -> Result<&'a mut Command> {
    let search = std::env::var("PATH").unwrap_or_default();
    let plugin = plugin.map(|plugin| format!(":{}", plugin.display())).unwrap_or_default();
    command
        .env("KUBECONFIG", &cluster.kubectl.kubeconfig)
        .env("PATH", format!("{}:{search}{plugin}", build::bin(root).display()));
    if let Some(log) = cluster.audit_log() {
        command.env(AUDIT_LOG, log);
    }
    if let Some(fault) = cluster.fault_command()? {
        command.env(FAULT, fault);
    }
    Ok(command)
}

fn try_keep_logs(dir: &Path, cluster: &Cluster) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(dir)?;
    for what in ["events", "pods", "trustdomains,workloadidentities"] {
        let list = cluster.kubectl.cmd(&["get", what, "--all-namespaces", "--output=yaml"]).read();
        fs::write(dir.join(format!("{what}.yaml")), list.unwrap_or_else(|error| error.to_string()))?;
    }
    match cluster.logs() {
        Some(logs) => cmd("cp", ["--archive"]).arg(logs).arg(dir.join("node")).quiet(),
        None => {
            cluster.kubectl.cmd(&["cluster-info", "dump", "--all-namespaces", "--output-directory"]).arg(dir).quiet()
        }
    }
}
