//! Runs other programs with their output shown, captured, or hidden unless they fail; and the only function that polls.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A program with its arguments.
pub(crate) fn cmd<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Ways to run a program. Each error names the command line and its exit status.
pub(crate) trait Run {
    /// Runs it with its output shown.
    fn run(&mut self) -> Result<()>;
    /// Runs it without showing its output; if it fails, the error includes the output.
    fn quiet(&mut self) -> Result<()>;
    /// Runs it and returns its standard output, without the trailing newline.
    fn read(&mut self) -> Result<String>;
    /// Whether it ran successfully; its output is discarded.
    fn succeeds(&mut self) -> bool;
}

impl Run for Command {
    fn run(&mut self) -> Result<()> {
        let status = self.status().with_context(|| format!("starting `{}`", line(self)))?;
        if !status.success() {
            bail!("`{}` failed: {status}", line(self));
        }
        Ok(())
    }

    fn quiet(&mut self) -> Result<()> {
        self.read().map(drop)
    }

    fn read(&mut self) -> Result<String> {
        let output = self.stdin(Stdio::null()).output().with_context(|| format!("starting `{}`", line(self)))?;
        let out = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let err = String::from_utf8_lossy(&output.stderr);
            bail!("`{}` failed: {}\n{}{}", line(self), output.status, out, err);
        }
        Ok(out.trim_end_matches('\n').to_owned())
    }

    fn succeeds(&mut self) -> bool {
        self.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    }
}

/// What a program writes to standard output, also if it fails.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("starting `{}`", line(command)))?;
    String::from_utf8(output.stdout).with_context(|| format!("what `{}` writes is not UTF-8", line(command)))
}

/// The path of a program in `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

/// Polls `probe` until it returns a value; if `limit` passes, the error includes the last result.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        let error = match probe() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if started.elapsed() > limit {
            let message = format!("{what}: not within {} s", limit.as_secs());
            return Err(error.map_or_else(|| anyhow::anyhow!("{message}"), |e| e.context(message.clone())));
        }
        pause(Duration::from_millis(100));
    }
}

/// Sleeps between two polls of a state that cannot be waited for.
#[allow(clippy::disallowed_methods, reason = "the states of other programs are polled, here and nowhere else")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The command line for messages; long ones are truncated.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((cut, _)) => format!("{}…", line.get(..cut).unwrap_or_default()),
        None => line,
    }
}
