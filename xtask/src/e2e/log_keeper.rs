//! Keeps the logs of everything that runs on a cluster while the end-to-end tests do.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::{Lane, environment};
use crate::cluster::signal;

/// The program of the tests that follows logs.
const NAME: &str = "countersign-e2e-logs";

/// A program of the tests' own; it is ended with this.
#[derive(Debug)]
pub(crate) struct Keeper(Child);

impl Keeper {
    /// Starts it on a lane's cluster, and waits until it follows all logs.
    pub(crate) fn start(lane: &Lane<'_>) -> Result<Self> {
        let mut command = lane.programs.end_to_end(NAME)?.command();
        environment(&mut command, lane.root, &lane.cluster)?;
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

impl Drop for Keeper {
    fn drop(&mut self) {
        // It undoes what it did to the product.
        let _ = signal(&[self.0.id()], Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
