//! The command line, parsed with `lexopt`: the program is started twice for each pod, and a parser that generates its help
//! adds half a megabyte to it.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

/// The output of `--help`.
pub(crate) const USAGE: &str = "\
Holds the key beside the workload. Configured by its environment, COUNTERSIGN_*.

Usage: countersign-agent run
           Serve every session until SIGTERM.
       countersign-agent wait [--timeout SPAN] [--termination-log PATH]
           Return once every session has an identity.
           --timeout SPAN          how long to wait, such as 500ms, 20s or 1m (20s)
           --termination-log PATH  where the reason goes when the time is over (/dev/termination-log)
       countersign-agent --help | --version";

/// A parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// Execute a command.
    Execute(Command),
    /// Print a text and exit.
    Print(String),
}

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Serve every session until SIGTERM.
    Run,
    /// Return once every session has an identity.
    Wait {
        /// How long to wait.
        timeout: Duration,
        /// Where the reason is written on time-out.
        termination_log: PathBuf,
    },
}

/// Parses a command line.
///
/// # Errors
/// The argument that is not understood.
pub(crate) fn read(mut words: lexopt::Parser) -> Result<Arguments, lexopt::Error> {
    let mut command = None;
    while let Some(word) = words.next()? {
        match (word, &mut command) {
            (Short('h') | Long("help"), _) => return Ok(Arguments::Print(USAGE.to_owned())),
            (Short('V') | Long("version"), _) => {
                return Ok(Arguments::Print(format!("countersign-agent {}", env!("CARGO_PKG_VERSION"))));
            }
            (Value(name), None) => command = Some(command_named(&name.string()?)?),
            (Long("timeout"), Some(Command::Wait { timeout, .. })) => *timeout = words.value()?.parse_with(duration)?,
            (Long("termination-log"), Some(Command::Wait { termination_log, .. })) => {
                *termination_log = words.value()?.into();
            }
            (word, _) => return Err(word.unexpected()),
        }
    }
    command.map(Arguments::Execute).ok_or_else(|| "say what to do: run, or wait".into())
}

fn command_named(name: &str) -> Result<Command, lexopt::Error> {
    match name {
        "run" => Ok(Command::Run),
        "wait" => {
            Ok(Command::Wait { timeout: Duration::from_secs(20), termination_log: "/dev/termination-log".into() })
        }
        _ => Err(format!("{name:?} is no command: run and wait are").into()),
    }
}

/// A number of seconds, or a number with the unit `ms`, `s` or `m`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| "wanted is a number with ms, s or m, such as 20s".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("{unit:?} is no unit: ms, s and m are")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Arguments, Command, USAGE, read};

    fn reads(line: &str) -> Result<Arguments, String> {
        read(lexopt::Parser::from_args(line.split_whitespace())).map_err(|error| error.to_string())
    }

    #[test]
    fn each_command_is_understood() {
        assert_eq!(reads("run"), Ok(Arguments::Execute(Command::Run)));
        let wait = |seconds, log: &str| {
            Ok(Arguments::Execute(Command::Wait { timeout: Duration::from_secs(seconds), termination_log: log.into() }))
        };
        assert_eq!(reads("wait"), wait(20, "/dev/termination-log"));
        assert_eq!(reads("wait --timeout 1m --termination-log=/tmp/x"), wait(60, "/tmp/x"));
        assert_eq!(reads("wait --timeout=3s"), wait(3, "/dev/termination-log"));
        assert_eq!(reads("wait --help"), Ok(Arguments::Print(USAGE.to_owned())));
        assert!(matches!(reads("-V"), Ok(Arguments::Print(text)) if text.starts_with("countersign-agent ")));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("", "run, or wait"),
            ("serve", "\"serve\" is no command"),
            ("run wait", "\"wait\""),
            ("run --timeout 3s", "--timeout"),
            ("wait --timeout", "--timeout"),
            ("wait --timeout soon", "wanted is a number"),
            ("wait --timeout 3h", "\"h\" is no unit"),
            ("wait --patience 3s", "--patience"),
            ("--timeout 3s wait", "--timeout"),
        ] {
            let error = reads(line).expect_err(line);
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
