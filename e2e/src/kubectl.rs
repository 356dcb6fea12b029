//! `kubectl`, for what users do with it.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

/// `kubectl`: the program in the variable `KUBECTL`, if that is set.
#[must_use]
pub fn command() -> Command {
    Command::new(std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into()))
}

/// Runs it on a file or folder below `manifests/`, which is the last argument.
///
/// # Errors
/// It fails.
pub fn on_manifests(arguments: &[&str], manifests: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(manifests);
    let output = command().args(arguments).arg(path).output().context("run kubectl")?;
    ensure!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
