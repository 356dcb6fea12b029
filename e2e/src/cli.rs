//! `kubectl countersign`, as people and pipelines run it.

use std::process::{Command as Program, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::timeout,
};

use crate::{kubectl, wait::DEFAULT_TIMEOUT};

/// What a command of it printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// 0: all is well; 1: there is an answer, which names a problem; 2: there is no answer.
    pub code: i32,
    /// What was asked for.
    pub stdout: String,
    /// Warnings and errors.
    pub stderr: String,
}

/// Runs it as a plugin of kubectl.
///
/// # Errors
/// It cannot be started, or is killed.
pub fn run(arguments: &[&str]) -> Result<Ended> {
    let output = kubectl::command().arg("countersign").args(arguments).output().context("run kubectl")?;
    Ok(Ended {
        code: output.status.code().context("it was killed")?,
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// Runs it, and reads the JSON that it prints.
///
/// # Errors
/// There is no answer.
pub fn json(arguments: &[&str]) -> Result<(i32, Value)> {
    let ended = run(&[arguments, &["--output", "json"]].concat())?;
    ensure!(ended.code < 2, "kubectl countersign {arguments:?}: {}", ended.stderr);
    let value = serde_json::from_str(&ended.stdout).with_context(|| format!("{arguments:?}: {}", ended.stdout))?;
    Ok((ended.code, value))
}

/// A command of it that goes on for a while. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Lines of both outputs, as they are printed.
    lines: UnboundedReceiver<String>,
    /// The lines that were read.
    said: Vec<String>,
}

impl Running {
    /// Starts it as a plugin of kubectl.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::from(kubectl::command());
        command.arg("countersign").args(arguments).kill_on_drop(true);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run kubectl")?;
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(forward(child.stdout.take().context("no standard output")?, sender.clone()));
        tokio::spawn(forward(child.stderr.take().context("no standard error")?, sender));
        Ok(Self { child, lines, said: Vec::new() })
    }

    /// Waits until it prints a line that is wanted, and returns it.
    ///
    /// # Errors
    /// It does not in time, or ends before.
    pub async fn says(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let reading = async {
            while let Some(line) = self.lines.recv().await {
                self.said.push(line.clone());
                if wanted(&line) {
                    return Some(line);
                }
            }
            None
        };
        match timeout(DEFAULT_TIMEOUT, reading).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!("it ended before it said {what}:\n{}", self.said.join("\n")),
            Err(_) => bail!("waited {DEFAULT_TIMEOUT:?} until it said {what}:\n{}", self.said.join("\n")),
        }
    }

    /// Interrupts it as Ctrl-C does, and returns its exit code and what it printed.
    ///
    /// # Errors
    /// It does not end in time, or by the signal.
    pub async fn interrupt(self) -> Result<(i32, String)> {
        let id = self.child.id().context("it has ended")?.to_string();
        let sent = Program::new("kill").args(["-INT", &id]).status().context("run kill")?;
        ensure!(sent.success(), "kill: {sent}");
        self.end().await
    }

    /// Waits until it ends by itself, and returns its exit code and what it printed.
    ///
    /// # Errors
    /// It does not in time, or is killed.
    pub async fn end(mut self) -> Result<(i32, String)> {
        let ending = async {
            while let Some(line) = self.lines.recv().await {
                self.said.push(line);
            }
            self.child.wait().await
        };
        let status = timeout(DEFAULT_TIMEOUT, ending).await;
        let said = self.said.join("\n");
        let status = status.with_context(|| format!("it does not end:\n{said}"))?.context("wait for it")?;
        Ok((status.code().with_context(|| format!("it was killed ({status}):\n{said}"))?, said))
    }
}

/// Sends each line until the output is closed.
async fn forward(output: impl AsyncRead + Unpin, lines: UnboundedSender<String>) {
    let mut output = BufReader::new(output).lines();
    while let Ok(Some(line)) = output.next_line().await {
        if lines.send(line).is_err() {
            return;
        }
    }
}
