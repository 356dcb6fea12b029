//! `kubectl countersign`, as people and pipelines run it.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::kubectl;

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
