//! How long from the agent's start to the credentials on disk, and what it then occupies: real processes of the release
//! binary against an in-process issuer over TLS. `COUNTERSIGN_AGENT` names the binary, such as the image's static one; without
//! it, it is this workspace's. `--json` prints one object a line: name, value, unit.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark's output and its end")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::issuer::identity;
use support::{DEFAULT_ID, FakeIssuer, Place};

const WARM_UP: usize = 5;
const STARTS: usize = 200;
/// What a start may take before something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let binary = std::env::var("COUNTERSIGN_AGENT").unwrap_or(env!("CARGO_BIN_EXE_countersign-agent").to_owned());
    // The issuer has its own thread: it must not wait for the thread that waits for the agent.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let issuer = runtime.block_on(FakeIssuer::start(vec![identity(DEFAULT_ID)]));
    let mut spans = Vec::new();
    let mut empty = Vec::new();
    let mut resident = Vec::new();
    // In turn, so that what else the machine does falls on both alike.
    for n in 0..WARM_UP + STARTS {
        let (span, kilobytes) = runtime.block_on(start(&binary, &issuer));
        let without_work = start_and_end(&binary);
        if n >= WARM_UP {
            empty.push(without_work);
            spans.push(span);
            resident.push(kilobytes);
        }
    }
    spans.sort_unstable();
    empty.sort_unstable();
    resident.sort_unstable();
    let millis = |spans: &[Duration], share: f64| percentile(spans, share).as_secs_f64() * 1000.0;
    let mebibytes = percentile(&resident, 0.5) as f64 / 1024.0;
    for (name, value, unit) in [
        ("agent start to file, p50", millis(&spans, 0.50), "ms"),
        ("agent start to file, p99", millis(&spans, 0.99), "ms"),
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
    let place = Place::new();
    let bundle = place.credentials().join("credential-bundle.pem");
    let environment = place.environment(issuer);
    let begun = Instant::now();
    let mut agent = Agent::spawn(binary, &environment);
    until(|| bundle.exists()).await;
    let span = begun.elapsed();
    let marker = place.path("private/ready");
    until(|| std::fs::read_to_string(&marker).is_ok_and(|ready| !ready.is_empty())).await;
    (span, agent.resident_kilobytes())
}

/// The same program, which only says its version: what the machine takes for any process.
fn start_and_end(binary: &str) -> Duration {
    let begun = Instant::now();
    let status = Command::new(binary).arg("--version").stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "the agent says its version");
    begun.elapsed()
}

/// Looks every millisecond: a busy look would take a core from the agent.
async fn until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(1));
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not there after {PATIENCE:?}");
        look.tick().await;
    }
}

/// A process that ends with its value.
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
