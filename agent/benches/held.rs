//! What an agent occupies while it does its work: one client that watches, twenty renewals, then rest. A real process
//! against an in-process issuer over TLS; with `TMPDIR=/dev/shm` its volumes are in memory as in a pod. `COUNTERSIGN_AGENT` names the binary, such as the
//! image's static one; without it, it is this workspace's. `--json` prints one object a line: name, value, unit.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark's output and its end")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use spiffe::WorkloadApiClient;
use support::issuer::identity;
use support::{DEFAULT_ID, FakeIssuer, Place};

/// Renewals before anything is measured, beside the first certificate.
const RENEWALS: usize = 20;
/// A life of which the half, a second, is the shortest time between two renewals.
const SHORT_LIFE: u64 = 2;
/// How long it is watched at rest.
const REST: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let binary = std::env::var("COUNTERSIGN_AGENT").unwrap_or(env!("CARGO_BIN_EXE_countersign-agent").to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(measure(&binary));
}

async fn measure(binary: &str) {
    let issuer = FakeIssuer::start(vec![identity(DEFAULT_ID)]).await;
    issuer.x509_ttl(SHORT_LIFE);
    let place = Place::new();
    let agent = Agent::spawn(binary, &place.environment(&issuer));
    until(|| place.credentials().join("credential-bundle.pem").exists()).await;
    let client = WorkloadApiClient::connect_to(place.endpoint()).await.unwrap();
    let mut updates = client.stream_x509_contexts().await.unwrap();
    let watching = tokio::spawn(async move {
        let mut seen = 0;
        while let Some(Ok(_)) = updates.next().await {
            seen += 1;
        }
        seen
    });
    until(|| issuer.inner.asked.load(Ordering::Relaxed) > RENEWALS).await;
    // The next certificate is for long.
    issuer.x509_ttl(24 * 3600);
    let asked = issuer.inner.asked.load(Ordering::Relaxed);
    until(|| issuer.inner.asked.load(Ordering::Relaxed) > asked).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (resident, files) = (agent.resident(), in_files(place.directory.path()));
    let (before, begun) = (agent.cpu(), Instant::now());
    tokio::time::sleep(REST).await;
    let a_minute = (agent.cpu() - before).as_secs_f64() * 60.0 / begun.elapsed().as_secs_f64();
    drop(agent);
    assert!(watching.await.unwrap() >= RENEWALS, "the client saw the renewals");
    print("agent memory after 20 renewals, with its files", (resident + files) as f64 / 1_048_576.0, "MiB");
    print("agent files in memory", files as f64 / 1024.0, "KiB");
    print("agent CPU at rest, a minute", a_minute * 1000.0, "ms");
}

fn print(name: &str, value: f64, unit: &str) {
    if std::env::args().any(|argument| argument == "--json") {
        println!(r#"{{"name":"{name}","value":{value:.3},"unit":"{unit}"}}"#);
    } else {
        println!("{name:50} {value:8.2} {unit}");
    }
}

async fn until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not there after {PATIENCE:?}");
        look.tick().await;
    }
}

/// Bytes of the pages that the files below `directory` take, but for the token, which is no volume of the agent's own.
fn in_files(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    entries
        .map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => in_files(&entry.path()),
            _ => entry.metadata().unwrap().blocks() * 512,
        })
        .sum()
}

/// A process that ends with its value.
struct Agent(Child);

impl Agent {
    fn spawn(binary: &str, environment: &[(&'static str, String)]) -> Self {
        let mut command = Command::new(binary);
        command.arg("run").env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        Self(command.stderr(Stdio::null()).spawn().expect("the agent's binary starts"))
    }

    /// Bytes: what is mapped of the binary, too.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The time its threads ran (field 1 of `schedstat`, nanoseconds).
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap().flatten();
        let of = |task: std::fs::DirEntry| -> u64 {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split_ascii_whitespace().next().map_or(0, |first| first.parse().unwrap())
        };
        Duration::from_nanos(tasks.map(of).sum())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
