//! Keeps the logs of everything that runs on a cluster while the end-to-end tests do.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::cluster::signal;
use crate::sh::{Run as _, cmd};

/// A program of the tests' own; it is ended with this.
#[derive(Debug)]
pub(crate) struct Keeper(Child);

impl Keeper {
    /// Builds it, starts it in the environment that `prepare` makes, and waits until it follows all logs.
    pub(crate) fn start(root: &Path, prepare: impl FnOnce(&mut Command) -> Result<()>) -> Result<Self> {
        const NAME: &str = "countersign-e2e-logs";
        cmd("cargo", ["build", "--quiet", "--package", "countersign-e2e", "--bin", NAME]).current_dir(root).run()?;
        let mut command = Command::new(root.join("target/debug").join(NAME));
        prepare(&mut command)?;
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
