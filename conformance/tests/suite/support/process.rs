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
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
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
    output: Lines<BufReader<ChildStdout>>,
    announced: Announced,
    log: Arc<Mutex<Vec<String>>>,
}

/// What a harness announced so far (harness contract, section 2.3).
#[derive(Debug, Default)]
struct Announced {
    version: Option<String>,
    x509: Option<u16>,
    control: Option<u16>,
    ready: bool,
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
        let output = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let log = Arc::default();
        let stderr = child.stderr.take().context("no standard error")?;
        tokio::spawn(collect(stderr, Arc::clone(&log)));
        Ok(Harness { child, group, output, announced: Announced::default(), log })
    }
}

impl Harness {
    /// Waits for `READY`; may be called again when it was not ready in time.
    pub(crate) async fn ready(&mut self, limit: Duration) -> anyhow::Result<Start> {
        match timeout(limit, self.announced.read(&mut self.output)).await {
            Err(_) => Ok(Start::Waiting),
            Ok(read) => read.map(|()| if self.announced.ready { Start::Ready } else { Start::Ended }),
        }
    }

    pub(crate) fn x509_port(&self) -> anyhow::Result<u16> {
        self.announced.x509.context("no X.509 port")
    }

    pub(crate) fn control(&self) -> anyhow::Result<Control> {
        self.announced.control.map(Control::new).context("no control port")
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

impl Announced {
    /// Reads on until `READY` or the end. Nothing is lost when the future is dropped.
    async fn read(&mut self, output: &mut Lines<impl AsyncBufRead + Unpin>) -> anyhow::Result<()> {
        while let Some(line) = output.next_line().await? {
            match line.split_once('=') {
                Some(("SPIFFE_HARNESS_VERSION", value)) => self.version = Some(value.to_owned()),
                Some(("SPIFFE_X509_PORT", value)) => self.x509 = Some(value.parse()?),
                Some(("SPIFFE_CONTROL_PORT", value)) => self.control = Some(value.parse()?),
                None if line == "READY" => {
                    let version = self.version.as_deref();
                    anyhow::ensure!(version == Some("1"), "the harness is of version {version:?}");
                    self.ready = true;
                    return Ok(());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

async fn collect(stderr: impl AsyncRead + Unpin, log: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.lock().push(line);
    }
}
