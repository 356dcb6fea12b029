//! Faults: what the cluster or the product suffers for a while, and the long way of a test from before to after.
//!
//! How a component is broken is not the tests' to know: `COUNTERSIGN_FAULT` is a command that does it for as long as its
//! standard input is open. Without it the tests that need it say that they did not run.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    hash::{BuildHasher as _, Hasher as _},
    io::Write as _,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
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
    until::{PATIENCE, until},
};

/// What is broken is broken for every test of the program: one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The command that breaks things.
#[derive(Debug)]
pub struct Faults(Vec<String>);

/// One fault, which is over at the latest when this is dropped.
#[derive(Debug)]
pub struct Fault {
    what: String,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// Runs a test that breaks the cluster or the product: alone, and the next one once all serves again.
///
/// # Panics
/// The test failed.
pub async fn faulty(name: &str, test: impl AsyncFnOnce(&World, &Faults) -> Result<()>) {
    if let Some(faults) = Faults::given(name) {
        alone(name, async |world| test(world, &faults).await).await;
    }
}

/// As [`faulty`], for what can be broken over the Kubernetes API.
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

/// Lets so much time pass: how long a fault lasts is part of the test, and nothing can be asked while the API server is gone.
pub async fn lasts(span: Duration) {
    tokio::time::sleep(span).await;
}

/// Writes down what a test counted: to standard error, and as a line of the file in `COUNTERSIGN_COUNTS` if there is one.
///
/// # Errors
/// The file cannot be written.
#[expect(clippy::print_stderr, reason = "counts are for whoever reads the test's output")]
pub fn counted(test: &str, counts: &Value) -> Result<()> {
    let line = json!({ "test": test, "counts": counts });
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("COUNTERSIGN_COUNTS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).context("open the counts")?;
        writeln!(file, "{line}").context("write down the counts")?;
    }
    Ok(())
}

/// How long a soak's random killing goes on: `COUNTERSIGN_SOAK_MINUTES`, else ten minutes.
#[must_use]
pub fn soak_time() -> Duration {
    let minutes = std::env::var("COUNTERSIGN_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    Duration::from_secs(60 * minutes)
}

impl Faults {
    /// The command in `COUNTERSIGN_FAULT`; says so if there is none.
    #[expect(clippy::print_stderr, reason = "a test that did not run must not look as if it had")]
    #[must_use]
    pub fn given(test: &str) -> Option<Self> {
        let command = std::env::var("COUNTERSIGN_FAULT").unwrap_or_default();
        let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            eprintln!("NOT RUN: {test}: this cluster has no way to be broken (COUNTERSIGN_FAULT)");
            return None;
        }
        Some(Self(words))
    }

    /// Begins a fault, and returns once it is in effect.
    ///
    /// # Errors
    /// The command refuses, or takes too long.
    pub async fn begin(&self, fault: &[&str]) -> Result<Fault> {
        let what = fault.join(" ");
        let (program, arguments) = self.0.split_first().context("COUNTERSIGN_FAULT is empty")?;
        let mut child = Command::new(program)
            .args(arguments)
            .args(fault)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt from the keyboard ends the test; the command must live to undo what it did.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let mut fault = Fault { what, child, input, output };
        fault.answer().await?;
        Ok(fault)
    }

    /// Has something happen that is over at once.
    ///
    /// # Errors
    /// The command refuses, or takes too long.
    pub async fn once(&self, fault: &[&str]) -> Result<()> {
        self.begin(fault).await?.over().await
    }
}

impl Fault {
    /// Tells the command something, and returns its answer.
    ///
    /// # Errors
    /// It does not understand, or has ended.
    pub async fn tell(&mut self, line: &str) -> Result<Value> {
        self.input.write_all(format!("{line}\n").as_bytes()).await.with_context(|| format!("tell {}", self.what))?;
        self.answer().await
    }

    /// Ends the fault, and returns once the cluster's API answers again.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn over(self) -> Result<()> {
        let Self { what, mut child, input, .. } = self;
        drop(input);
        let status = timeout(PATIENCE * 2, child.wait()).await.with_context(|| format!("{what} is not undone"))??;
        ensure!(status.success(), "{what}: {status}");
        Ok(())
    }

    async fn answer(&mut self) -> Result<Value> {
        let line =
            timeout(PATIENCE, self.output.next_line()).await.with_context(|| format!("{}: no word", self.what))?;
        match line? {
            Some(line) => serde_json::from_str(&line).with_context(|| format!("{} says: {line}", self.what)),
            None => bail!("{} has ended: {}", self.what, self.child.wait().await?),
        }
    }
}

/// Any number below another.
#[must_use]
pub fn any(below: usize) -> usize {
    let number = usize::try_from(RandomState::new().build_hasher().finish() >> 1).unwrap_or_default();
    number.checked_rem(below).unwrap_or_default()
}

impl World {
    /// Applies a Deployment of so many idle replicas for each of these accounts, each with its identity.
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

    /// Pods with this label `app` that are not on their way out.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn pods_of(&self, app: &str) -> Result<Vec<Pod>> {
        let mut pods = self.pods().list(&ListParams::default().labels(&format!("app={app}"))).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Waits until so many pods of each account are ready, looks at the credential of each, and returns how many there were:
    /// each has the id that its account should have, and a key of its own.
    ///
    /// # Errors
    /// They were not ready in time, or one has what it should not.
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
