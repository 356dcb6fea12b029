//! The command line, parsed with `lexopt`: the program is started twice for each pod, and a parser that generates its help
//! adds half a megabyte to it.

use std::path::PathBuf;
use std::time::Duration;

use countersign_agent::probe::{Probe, Role};
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
       countersign-agent probe [--timeout SPAN] --serve ADDRESS | --dial ADDRESS
           Make one handshake with the pod's identity, and print what came of it. For kubectl countersign probe.
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
    /// Make one handshake.
    Probe(Probe),
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
            (Value(name), None) => command = Some(Name::of(&name.string()?)?),
            (Long("timeout"), Some(Name::Wait { timeout, .. } | Name::Probe { timeout, .. })) => {
                *timeout = words.value()?.parse_with(duration)?;
            }
            (Long("termination-log"), Some(Name::Wait { termination_log, .. })) => {
                *termination_log = words.value()?.into();
            }
            (Long("serve"), Some(Name::Probe { role, .. })) => *role = Some(Role::Serve(words.value()?.parse()?)),
            (Long("dial"), Some(Name::Probe { role, .. })) => *role = Some(Role::Dial(words.value()?.parse()?)),
            (word, _) => return Err(word.unexpected()),
        }
    }
    let command = match command {
        None => return Err("say what to do: run, or wait".into()),
        Some(Name::Run) => Command::Run,
        Some(Name::Wait { timeout, termination_log }) => Command::Wait { timeout, termination_log },
        Some(Name::Probe { role, timeout }) => {
            Command::Probe(Probe::new(role.ok_or("probe needs --serve or --dial")?, timeout))
        }
    };
    Ok(Arguments::Execute(command))
}

/// A command whose arguments are still being read.
enum Name {
    Run,
    Wait { timeout: Duration, termination_log: PathBuf },
    Probe { role: Option<Role>, timeout: Duration },
}

impl Name {
    fn of(name: &str) -> Result<Self, lexopt::Error> {
        match name {
            "run" => Ok(Self::Run),
            "wait" => {
                Ok(Self::Wait { timeout: Duration::from_secs(20), termination_log: "/dev/termination-log".into() })
            }
            "probe" => Ok(Self::Probe { role: None, timeout: Duration::from_secs(30) }),
            _ => Err(format!("{name:?} is no command: run, wait and probe are").into()),
        }
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

    use countersign_agent::probe::Role;

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
        let Ok(Arguments::Execute(Command::Probe(probe))) = reads("probe --dial 10.0.0.1:7000 --timeout 3s") else {
            panic!("a probe is understood");
        };
        assert_eq!((probe.role, probe.timeout), (Role::Dial("10.0.0.1:7000".parse().unwrap()), Duration::from_secs(3)));
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
            ("probe", "--serve or --dial"),
            ("probe --dial nowhere", "nowhere"),
            ("run --dial 10.0.0.1:7000", "--dial"),
            ("--timeout 3s wait", "--timeout"),
        ] {
            let error = reads(line).expect_err(line);
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
