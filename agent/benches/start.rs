//! The time from the agent's start to the credentials on disk, and its memory then: real processes of the release binary
//! against an in-process issuer over TLS. `COUNTERSIGN_AGENT` names the binary, such as the static one of the image; the
//! default is that of this workspace. `--json` prints one object a line: name, value, unit.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::issuer::identity;
use support::{AgentHome, DEFAULT_ID, FakeIssuer};

const WARM_UP: usize = 5;
const STARTS: usize = 200;
/// A start that takes longer fails the benchmark.
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let binary = std::env::var("COUNTERSIGN_AGENT").unwrap_or(env!("CARGO_BIN_EXE_countersign-agent").to_owned());
    // The issuer has its own thread: it must not wait for the one that waits for the agent.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let issuer = runtime.block_on(FakeIssuer::start(vec![identity(DEFAULT_ID)]));
    let mut starts = Vec::new();
    let mut empty = Vec::new();
    let mut resident = Vec::new();
    // Alternating, so that other load on the machine affects both alike.
    for n in 0..WARM_UP + STARTS {
        let (time, kilobytes) = runtime.block_on(start(&binary, &issuer));
        let without_work = start_and_exit(&binary);
        if n >= WARM_UP {
            empty.push(without_work);
            starts.push(time);
            resident.push(kilobytes);
        }
    }
    starts.sort_unstable();
    empty.sort_unstable();
    resident.sort_unstable();
    let millis = |spans: &[Duration], share: f64| percentile(spans, share).as_secs_f64() * 1000.0;
    let mebibytes = percentile(&resident, 0.5) as f64 / 1024.0;
    for (name, value, unit) in [
        ("agent start to file, p50", millis(&starts, 0.50), "ms"),
        ("agent start to file, p99", millis(&starts, 0.99), "ms"),
        ("agent start and end without work, p50", millis(&empty, 0.50), "ms"),
        ("agent start and end without work, p99", millis(&empty, 0.99), "ms"),
        ("agent resident memory", mebibytes, "MiB"),
    ] {
        if json {
            println!(r#"{{"name":"{name}","value":{value:.3},"unit":"{unit}"}}"#);
        } else {
            println!("{name:28} {value:8.2} {unit}");
        }
    }
}

/// One start: the time until the bundle can be read, and VmRSS in kB right after.
async fn start(binary: &str, issuer: &FakeIssuer) -> (Duration, u64) {
    let home = AgentHome::new();
    let bundle = home.credentials().join("credential-bundle.private-key.x509.pem");
    let environment = home.environment(issuer);
    let started = Instant::now();
    let mut agent = Agent::spawn(binary, &environment);
    until(|| bundle.exists()).await;
    let time = started.elapsed();
    let marker = home.path("private/ready");
    until(|| std::fs::read_to_string(&marker).is_ok_and(|ready| !ready.is_empty())).await;
    (time, agent.resident_kilobytes())
}

/// The same program, which only prints its version: the time that any process takes on this machine.
fn start_and_exit(binary: &str) -> Duration {
    let started = Instant::now();
    let status = Command::new(binary).arg("--version").stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "the agent says its version");
    started.elapsed()
}

/// Polls every millisecond: a busy loop would take a core from the agent.
async fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    let mut poll = tokio::time::interval(Duration::from_millis(1));
    while !condition() {
        assert!(started.elapsed() < TIMEOUT, "not there after {TIMEOUT:?}");
        poll.tick().await;
    }
}

/// A process that is killed on drop.
struct Agent(Child);

impl Agent {
    fn spawn(binary: &str, environment: &[(&'static str, String)]) -> Self {
        let mut command = Command::new(binary);
        command.arg("run").env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        Self(command.stderr(Stdio::null()).spawn().expect("the agent's binary starts"))
    }

    fn resident_kilobytes(&mut self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn percentile<T: Copy>(sorted: &[T], share: f64) -> T {
    let last = sorted.len() - 1;
    *sorted.get(((last as f64) * share).round() as usize).unwrap()
}
