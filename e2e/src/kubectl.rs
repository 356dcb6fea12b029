//! `kubectl`, for what users do with it.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

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

/// Runs it with this input.
///
/// # Errors
/// It fails.
pub fn with_input(arguments: &[&str], input: &str) -> Result<Output> {
    let mut command = command();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("run kubectl")?;
    child.stdin.take().context("kubectl's input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

/// The warnings on applying this as a dry run.
///
/// # Errors
/// It would be refused.
pub fn warnings(yaml: &str) -> Result<String> {
    let output = with_input(&["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"], yaml)?;
    Ok(String::from_utf8(output.stderr)?)
}

/// A line of `kubectl get -o wide`, by the names of its columns, in order.
///
/// # Errors
/// It fails, or prints no table.
pub fn columns(namespace: &str, kind: &str, name: &str) -> Result<Vec<(String, String)>> {
    let printed = with_input(&["--namespace", namespace, "get", kind, name, "-o", "wide"], "")?;
    let printed = String::from_utf8(printed.stdout)?;
    let (header, line) = printed.trim_end().split_once('\n').context("a header and a line")?;
    let mut names = header.split("  ").map(str::trim).filter(|name| !name.is_empty()).peekable();
    let mut found = Vec::new();
    let mut rest = 0;
    while let Some(name) = names.next() {
        let begin = rest + header.get(rest..).and_then(|header| header.find(name)).context("the column")?;
        let after = begin + name.len();
        let end = names.peek().and_then(|next| Some(after + header.get(after..)?.find(next)?)).unwrap_or(line.len());
        found.push((name.to_owned(), line.get(begin..end).unwrap_or_default().trim().to_owned()));
        rest = after;
    }
    Ok(found)
}
