//! The memory and CPU of a running agent: one client that watches, twenty renewals, then idle. A real process against an
//! in-process issuer over TLS; with `TMPDIR=/dev/shm` its volumes are in memory as in a pod. `COUNTERSIGN_AGENT` names the
//! binary, such as the static one of the image; the default is that of this workspace. `--json` prints one object a line: name,
//! value, unit.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use spiffe::WorkloadApiClient;
use support::issuer::identity;
use support::{AgentHome, DEFAULT_ID, FakeIssuer};

/// Renewals before anything is measured, beside the first certificate.
const RENEWALS: usize = 20;
/// Seconds: half of it is the shortest time between two renewals.
const SHORT_TTL: u64 = 2;
/// How long it is measured while idle.
const IDLE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(120);

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
    issuer.x509_ttl(SHORT_TTL);
    let home = AgentHome::new();
    let agent = Agent::spawn(binary, &home.environment(&issuer));
    until(|| home.credentials().join("credential-bundle.private-key.x509.pem").exists()).await;
    let client = WorkloadApiClient::connect_to(home.endpoint()).await.unwrap();
    let mut updates = client.stream_x509_contexts().await.unwrap();
    let watching = tokio::spawn(async move {
        let mut seen = 0;
        while let Some(Ok(_)) = updates.next().await {
            seen += 1;
        }
        seen
    });
    until(|| issuer.state.requests.load(Ordering::Relaxed) > RENEWALS).await;
    // The next certificate is long-lived.
    issuer.x509_ttl(24 * 3600);
    let requests = issuer.state.requests.load(Ordering::Relaxed);
    until(|| issuer.state.requests.load(Ordering::Relaxed) > requests).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (resident, files) = (agent.resident(), size_of_files(home.directory.path()));
    let (before, started) = (agent.cpu(), Instant::now());
    tokio::time::sleep(IDLE).await;
    let cpu_per_minute = (agent.cpu() - before).as_secs_f64() * 60.0 / started.elapsed().as_secs_f64();
    drop(agent);
    assert!(watching.await.unwrap() >= RENEWALS, "the client saw the renewals");
    print("agent memory after 20 renewals, with its files", (resident + files) as f64 / 1_048_576.0, "MiB");
    print("agent files in memory", files as f64 / 1024.0, "KiB");
    print("agent CPU at rest, a minute", cpu_per_minute * 1000.0, "ms");
}

fn print(name: &str, value: f64, unit: &str) {
    if std::env::args().any(|argument| argument == "--json") {
        println!(r#"{{"name":"{name}","value":{value:.3},"unit":"{unit}"}}"#);
    } else {
        println!("{name:50} {value:8.2} {unit}");
    }
}

async fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    while !condition() {
        assert!(started.elapsed() < TIMEOUT, "not there after {TIMEOUT:?}");
        poll.tick().await;
    }
}

/// The allocated bytes of all files below `directory`.
fn size_of_files(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    entries
        .map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => size_of_files(&entry.path()),
            _ => entry.metadata().unwrap().blocks() * 512,
        })
        .sum()
}

/// A process that is killed on drop.
struct Agent(Child);

impl Agent {
    fn spawn(binary: &str, environment: &[(&'static str, String)]) -> Self {
        let mut command = Command::new(binary);
        command.arg("run").env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        Self(command.stderr(Stdio::null()).spawn().expect("the agent's binary starts"))
    }

    /// Resident bytes, including mapped parts of the binary.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The CPU time of its threads (field 1 of `schedstat`, nanoseconds).
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
