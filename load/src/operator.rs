//! The operator's process: started with a kubeconfig on the loopback address, observed from outside, and stopped.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use countersign_contract::environment::LOG;

use crate::{figures::say, install::SYSTEM, machine::cpu_of, metrics::HttpPort};

/// Timeout for a start.
const TIMEOUT: Duration = Duration::from_secs(300);

/// How the operator is started.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) binary: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    /// The folder of logs.
    pub(crate) dir: PathBuf,
}

/// A running operator, killed on drop.
#[derive(Debug)]
pub(crate) struct Operator {
    child: Child,
    pub(crate) issuer: SocketAddr,
    pub(crate) http: HttpPort,
    log: PathBuf,
    /// The time from the start of the process until it reported ready.
    pub(crate) ready_after: Duration,
}

/// The resources that a process has used since its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Resident memory, bytes.
    pub(crate) resident: u64,
    /// Peak resident memory, bytes.
    pub(crate) peak: u64,
}

impl Installed {
    /// Starts an operator and waits until it is ready.
    pub(crate) async fn start(&self, name: &str) -> Result<Operator> {
        let (issuer, http) = (free_address()?, free_address()?);
        let log = self.dir.join(format!("{name}.log"));
        let mut command = Command::new(&self.binary);
        command
            .args(["--namespace", SYSTEM, "--listen-issuer", &issuer.to_string(), "--listen-http", &http.to_string()])
            .args(["--listen-inspect", "127.0.0.1:0", "--max-token-life", "13h"])
            .args(["--federation-networks", "127.0.0.0/8"])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", SYSTEM)
            .env(LOG, "warn,countersign_operator=info")
            .stdin(Stdio::null())
            .stdout(File::create(&log).with_context(|| format!("making {}", log.display()))?)
            .stderr(Stdio::inherit());
        let begun = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {}", self.binary.display()))?;
        let mut operator = Operator { child, issuer, http: HttpPort(http), log, ready_after: Duration::ZERO };
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            look.tick().await;
            if operator.http.get("/readyz").await.is_ok_and(|(status, _)| status == 200) {
                break;
            }
            if let Some(status) = operator.child.try_wait()? {
                bail!("the operator ended ({status}); its log ends with\n{}", tail(&operator.log));
            }
            if begun.elapsed() > TIMEOUT {
                let (_, missing) = operator.http.get("/readyz").await?;
                bail!("the operator is not ready after {TIMEOUT:?}: {missing}\n{}", tail(&operator.log));
            }
        }
        operator.ready_after = begun.elapsed();
        say(format_args!("operator {name} is ready after {:.2} s", operator.ready_after.as_secs_f64()));
        Ok(operator)
    }
}

impl Operator {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let (id, gone) = (self.id(), "the operator's process is gone");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).context(gone)?;
        Ok(Usage { cpu: cpu_of(id)?, resident: kilobytes(&status, "VmRSS:")?, peak: kilobytes(&status, "VmHWM:")? })
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        self.http.metrics().await?.value(name)
    }

    /// Waits until the operator has been idle for two seconds, so that work caused by its start has ended.
    pub(crate) async fn settle(&self) -> Result<()> {
        const LOOK: Duration = Duration::from_secs(1);
        let begun = Instant::now();
        let (mut before, mut quiet) = (self.usage()?.cpu, 0);
        while quiet < 2 {
            tokio::time::sleep(LOOK).await;
            let now = self.usage()?.cpu;
            quiet = if now.saturating_sub(before) < LOOK.mul_f64(0.03) { quiet + 1 } else { 0 };
            before = now;
            if begun.elapsed() > TIMEOUT {
                say("the operator does not come to rest");
                return Ok(());
            }
        }
        say(format_args!("the operator is idle after {:.1} s more", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Sends SIGTERM, as the kubelet does.
    pub(crate) fn terminate(&self) -> Result<()> {
        use nix::{
            sys::signal::{Signal, kill},
            unistd::Pid,
        };
        let id = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(id, Signal::SIGTERM).context("telling the operator to stop")
    }

    /// Waits until it has stopped by itself.
    pub(crate) async fn stopped(mut self) -> Result<()> {
        let (begun, mut look) = (Instant::now(), tokio::time::interval(Duration::from_millis(100)));
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > TIMEOUT {
                bail!("the operator still runs {TIMEOUT:?} later; its log ends with\n{}", tail(&self.log));
            }
            look.tick().await;
        }
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kilobytes(status: &str, field: &str) -> Result<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok());
    value.map(|kilobytes: u64| kilobytes * 1024).with_context(|| format!("no {field} of the operator"))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut last: Vec<&str> = text.lines().rev().take(10).collect();
    last.reverse();
    last.join("\n")
}
