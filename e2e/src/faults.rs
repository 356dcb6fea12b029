//! Faults that affect the cluster or the product for a limited time, and tests that run through one.
//!
//! The tests do not know how a component is broken: `COUNTERSIGN_FAULT` is a command that breaks it for as long as its
//! standard input is open. Tests that need the command report that they did not run without it.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    hash::{BuildHasher as _, Hasher as _},
    io::Write as _,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use countersign_contract::environment::test::{COUNTS, FAULT, PEER_FAULT, SOAK_MINUTES};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
    time::timeout,
};

use crate::{
    World,
    fixture::PodSpec,
    pods::is_ready,
    replicas::OPERATOR,
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};

/// A fault affects every test of the program, so these tests run one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The command that injects faults.
#[derive(Debug)]
pub struct Faults(Vec<String>);

/// A running fault; it ends when this is dropped at the latest.
#[derive(Debug)]
pub struct Fault {
    what: String,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// Runs a test with faults in the cluster or the product: exclusively, and the next one only once everything serves again.
///
/// # Panics
/// The test failed.
pub async fn faulty(name: &str, test: impl AsyncFnOnce(&World, &Faults) -> Result<()>) {
    if let Some(faults) = Faults::from_env(name) {
        alone(name, async |world| test(world, &faults).await).await;
    }
}

/// As [`faulty`], for faults that are injected through the Kubernetes API.
///
/// # Panics
/// The test failed.
pub async fn alone(name: &str, test: impl AsyncFnOnce(&World) -> Result<()>) {
    let _alone = ALONE.lock().await;
    scenario(name, async |world| {
        let replicas = world.replicas(OPERATOR).await?;
        let outcome = test(world).await;
        let settled = async {
            if world.replicas(OPERATOR).await? != replicas {
                world.scale(OPERATOR, replicas).await?;
            }
            world.settled().await
        };
        let settled = settled.await;
        outcome.and(settled)
    })
    .await;
}

/// Runs what loads the whole cluster when no other such test of the program runs.
pub async fn exclusively<T>(test: impl Future<Output = T>) -> T {
    let _alone = ALONE.lock().await;
    test.await
}

/// Waits for `span` during a fault. Its duration is part of the test, and no state can be polled while the API server is
/// down.
pub async fn hold_for(span: Duration) {
    tokio::time::sleep(span).await;
}

/// Reports the counts of a test: on standard error, and as a line of the file in `COUNTERSIGN_COUNTS` if that is set.
///
/// # Errors
/// The file cannot be written.
#[expect(clippy::print_stderr, reason = "counts are for whoever reads the test's output")]
pub fn report_counts(test: &str, counts: &Value) -> Result<()> {
    let line = json!({ "test": test, "counts": counts });
    eprintln!("{line}");
    if let Some(path) = std::env::var_os(COUNTS) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).context("open the counts")?;
        writeln!(file, "{line}").context("write down the counts")?;
    }
    Ok(())
}

/// Duration of random kills in a soak: `COUNTERSIGN_SOAK_MINUTES`, or ten minutes.
#[must_use]
pub fn soak_time() -> Duration {
    let minutes = std::env::var(SOAK_MINUTES).ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    Duration::from_secs(60 * minutes)
}

impl Faults {
    /// The command in `COUNTERSIGN_FAULT`; prints a note if the variable is not set.
    #[must_use]
    pub fn from_env(test: &str) -> Option<Self> {
        Self::from_variable(FAULT, test)
    }

    /// As [`Self::from_env`], for the second cluster.
    #[must_use]
    pub fn of_peer(test: &str) -> Option<Self> {
        Self::from_variable(PEER_FAULT, test)
    }

    #[expect(clippy::print_stderr, reason = "a test that did not run must not look as if it had")]
    fn from_variable(variable: &str, test: &str) -> Option<Self> {
        let command = std::env::var(variable).unwrap_or_default();
        let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            eprintln!("NOT RUN: {test}: this cluster has no way to be broken ({variable})");
            return None;
        }
        Some(Self(words))
    }

    /// Starts a fault, and returns once it is in effect.
    ///
    /// # Errors
    /// The command fails, or takes too long.
    pub async fn begin(&self, fault: &[&str]) -> Result<Fault> {
        let what = fault.join(" ");
        let (program, arguments) = self.0.split_first().with_context(|| format!("{FAULT} is empty"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .args(fault)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt from the keyboard ends the test; the command must survive to undo its changes.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let mut fault = Fault { what, child, input, output };
        fault.answer().await?;
        Ok(fault)
    }

    /// Runs a fault that is over at once.
    ///
    /// # Errors
    /// The command fails, or takes too long.
    pub async fn run_once(&self, fault: &[&str]) -> Result<()> {
        self.begin(fault).await?.end().await
    }
}

impl Fault {
    /// Sends a line to the command, and returns its answer.
    ///
    /// # Errors
    /// The command does not understand it, or has ended.
    pub async fn send(&mut self, line: &str) -> Result<Value> {
        self.input.write_all(format!("{line}\n").as_bytes()).await.with_context(|| format!("tell {}", self.what))?;
        self.answer().await
    }

    /// Ends the fault, and returns once the cluster's API answers again.
    ///
    /// # Errors
    /// The API does not answer again in time.
    pub async fn end(self) -> Result<()> {
        let Self { what, mut child, input, .. } = self;
        drop(input);
        let status =
            timeout(DEFAULT_TIMEOUT * 2, child.wait()).await.with_context(|| format!("{what} is not undone"))??;
        ensure!(status.success(), "{what}: {status}");
        Ok(())
    }

    async fn answer(&mut self) -> Result<Value> {
        let line = timeout(DEFAULT_TIMEOUT, self.output.next_line())
            .await
            .with_context(|| format!("{}: no word", self.what))?;
        match line? {
            Some(line) => serde_json::from_str(&line).with_context(|| format!("{} says: {line}", self.what)),
            None => bail!("{} has ended: {}", self.what, self.child.wait().await?),
        }
    }
}

/// A random number less than `below`.
#[must_use]
pub fn random_below(below: usize) -> usize {
    let number = usize::try_from(RandomState::new().build_hasher().finish() >> 1).unwrap_or_default();
    number.checked_rem(below).unwrap_or_default()
}

impl World {
    /// Applies a Deployment with `replicas` idle pods for each account, each with its identity.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn idle(&self, accounts: &[String], replicas: u32) -> Result<()> {
        for account in accounts {
            self.cluster.apply(&self.identity_yaml(account, "")).await?;
            self.cluster.apply(&PodSpec::hold(account).deployment(&self.namespace, replicas)).await?;
        }
        Ok(())
    }

    /// Pods with this label `app` that are not being deleted.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn pods_of(&self, app: &str) -> Result<Vec<Pod>> {
        let mut pods = self.pods().list(&ListParams::default().labels(&format!("app={app}"))).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Waits until `replicas` pods of each account are ready, and checks that each credential has the id of its account and
    /// a key of its own. Returns the number of pods.
    ///
    /// # Errors
    /// They were not ready in time, or a credential is wrong.
    pub async fn each_has_its_own(&self, accounts: &[String], replicas: usize, deadline: Duration) -> Result<usize> {
        let mut keys = BTreeSet::new();
        let mut pods = 0;
        for account in accounts {
            let ready = until(&format!("{replicas} pods of {account} are ready"), deadline, async || {
                let ready = self.pods_of(account).await?;
                Ok((ready.len() == replicas && ready.iter().all(is_ready)).then_some(ready))
            })
            .await?;
            let credentials = ready.iter().map(|pod| async { self.credential(&pod.name_any()).await });
            let credentials: Vec<_> = stream::iter(credentials).buffer_unordered(4).try_collect().await?;
            for credential in credentials {
                ensure!(credential.id == self.id(account), "a pod of {account} has {}", credential.id);
                ensure!(keys.insert(credential.public_key), "two pods have one key");
                pods += 1;
            }
        }
        Ok(pods)
    }
}
