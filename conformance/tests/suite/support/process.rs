//! A harness process, by version 1 of the harness contract: one for each case, with no other configuration than the address
//! of the Workload API.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use countersign_contract::environment::application::ENDPOINT_SOCKET;
use countersign_contract::environment::test::{GO_HARNESS, HARNESS};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::control::Control;

/// For `READY` (harness contract, section 2.3), with room for a busy machine.
pub(crate) const READY: Duration = Duration::from_secs(20);
/// For the end after `SIGTERM` (section 2.4).
const END: Duration = Duration::from_secs(5);
/// Lines of standard error that an error shows.
const TAIL: usize = 20;

/// How a harness is started.
#[derive(Debug, Clone)]
pub(crate) struct Program(Vec<String>);

/// A running harness.
pub(crate) struct Harness {
    child: Child,
    group: Option<Pid>,
    log: Arc<Mutex<Vec<String>>>,
    /// Known once it is ready.
    ports: Option<(u16, u16)>,
}

/// How the wait for `READY` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Ready,
    /// The process, or its output, ended.
    Ended,
    /// Neither happened in time.
    Waiting,
}

impl Program {
    /// The harness that the suite examines: `COUNTERSIGN_CONFORMANCE_HARNESS`, or our own.
    pub(crate) fn examined() -> Self {
        Self::of(HARNESS).unwrap_or_else(Self::ours)
    }

    /// That of `countersign-verify`.
    pub(crate) fn ours() -> Self {
        Self(vec![env!("CARGO_BIN_EXE_countersign-verify-harness").to_owned()])
    }

    /// That of the crates `spiffe` and `spiffe-rustls`.
    pub(crate) fn spiffe() -> Self {
        Self(vec![env!("CARGO_BIN_EXE_spiffe-harness").to_owned()])
    }

    /// That of go-spiffe, which `cargo xtask` builds.
    pub(crate) fn go() -> Option<Self> {
        Self::of(GO_HARNESS)
    }

    fn of(variable: &str) -> Option<Self> {
        let words: Vec<_> = std::env::var(variable).ok()?.split_whitespace().map(str::to_owned).collect();
        (!words.is_empty()).then_some(Self(words))
    }

    /// Starts it with this address of the Workload API.
    pub(crate) fn start(&self, endpoint: &str) -> anyhow::Result<Harness> {
        let (program, arguments) = self.0.split_first().context("no harness")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env(ENDPOINT_SOCKET, endpoint);
        for kept in ["PATH", "HOME"] {
            command.envs(std::env::var_os(kept).map(|value| (kept, value)));
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let log = Arc::default();
        let stderr = child.stderr.take().context("no standard error")?;
        tokio::spawn(collect(stderr, Arc::clone(&log)));
        Ok(Harness { child, group, log, ports: None })
    }
}

impl Harness {
    /// Waits for `READY`.
    pub(crate) async fn ready(&mut self, limit: Duration) -> anyhow::Result<Start> {
        let stdout = self.child.stdout.as_mut().context("no standard output")?;
        let Ok(ports) = timeout(limit, read_ports(stdout)).await else { return Ok(Start::Waiting) };
        self.ports = ports?;
        Ok(if self.ports.is_some() { Start::Ready } else { Start::Ended })
    }

    pub(crate) fn x509_port(&self) -> anyhow::Result<u16> {
        self.ports.map(|(x509, _)| x509).context("the harness is not ready")
    }

    pub(crate) fn control(&self) -> anyhow::Result<Control> {
        self.ports.map(|(_, control)| Control::new(control)).context("the harness is not ready")
    }

    /// The end of what it wrote to standard error.
    pub(crate) fn log(&self) -> String {
        let log = self.log.lock();
        log[log.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Ends it as the contract says.
    pub(crate) async fn end(mut self) {
        if let Some(group) = self.group {
            // It may have ended already.
            let _ = killpg(group, Signal::SIGTERM);
        }
        if timeout(END, self.child.wait()).await.is_ok() {
            self.group = None;
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// The X.509 port and the control port; none if the output ends before `READY`.
async fn read_ports(stdout: impl AsyncRead + Unpin) -> anyhow::Result<Option<(u16, u16)>> {
    let mut lines = BufReader::new(stdout).lines();
    let (mut version, mut x509, mut control) = (None, None, None);
    while let Some(line) = lines.next_line().await? {
        match line.split_once('=') {
            Some(("SPIFFE_HARNESS_VERSION", value)) => version = Some(value.to_owned()),
            Some(("SPIFFE_X509_PORT", value)) => x509 = Some(value.parse()?),
            Some(("SPIFFE_CONTROL_PORT", value)) => control = Some(value.parse()?),
            None if line == "READY" => {
                anyhow::ensure!(version.as_deref() == Some("1"), "the harness is of version {version:?}");
                return Ok(Some((x509.context("no X.509 port")?, control.context("no control port")?)));
            }
            _ => {}
        }
    }
    Ok(None)
}

async fn collect(stderr: impl AsyncRead + Unpin, log: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.lock().push(line);
    }
}
