//! Captures the logs of all containers of a cluster during the end-to-end tests.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::{Lane, environment};
use crate::cluster::signal;

/// The program that captures logs.
const NAME: &str = "countersign-e2e-logs";

/// The running program, terminated on drop.
#[derive(Debug)]
pub(crate) struct LogCapture(Child);

impl LogCapture {
    /// Starts it on a lane's cluster, and waits until it follows the logs of all running containers.
    pub(crate) fn start(lane: &Lane<'_>) -> Result<Self> {
        let mut command = lane.programs.end_to_end(NAME)?.command();
        environment(&mut command, lane.root, &lane.cluster, None)?;
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {NAME}"))?;
        let mut word = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut word).with_context(|| format!("reading from {NAME}"))?;
        }
        if word.trim_end() != "ready" {
            let status = child.wait()?;
            bail!("{NAME} ended before it followed any log: {status}");
        }
        Ok(Self(child))
    }
}

impl Drop for LogCapture {
    fn drop(&mut self) {
        // It restores the product's log level.
        let _ = signal(&[self.0.id()], Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
