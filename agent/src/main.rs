//! The agent's command line.

mod arguments;

use std::path::Path;
use std::process::ExitCode;

use arguments::{Arguments, Command};
use countersign_agent::config::{Config, WaitConfig};
use countersign_agent::{run, telemetry, wait};

fn main() -> ExitCode {
    if let Err(error) = keep_to_itself() {
        return without_protection(error);
    }
    let command = match arguments::read(lexopt::Parser::from_env()) {
        Ok(Arguments::Do(command)) => command,
        Ok(Arguments::Say(text)) => return said(&text),
        Err(error) => return refused(&error),
    };
    telemetry::install(variable("COUNTERSIGN_LOG").as_deref());
    match execute(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes this process not dumpable, before it holds anything: other processes of the same user cannot follow
/// `/proc/<pid>/root` to the token, nor read the memory that holds keys, and no core is written. In its image the program is
/// executable but not readable (mode 0111), which has the kernel do the same from the first instruction; this holds for any
/// other file too, and where `fs.suid_dumpable` is set.
fn keep_to_itself() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)
}

/// Better no identity than one that other processes of the pod can take.
#[expect(clippy::print_stderr, reason = "there is no log before its filter is known")]
fn without_protection(error: nix::errno::Errno) -> ExitCode {
    eprintln!(
        "error: cannot keep other processes from this one's memory and files (prctl PR_SET_DUMPABLE: {error}); does a seccomp profile of the container forbid prctl?"
    );
    ExitCode::FAILURE
}

/// For people: the answer to `--help` and `--version`.
#[expect(clippy::print_stdout, reason = "it was asked for")]
fn said(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

/// As other programs, 2 for a command line that cannot be read.
#[expect(clippy::print_stderr, reason = "there is no log before its filter is known")]
fn refused(error: &lexopt::Error) -> ExitCode {
    eprintln!("error: {error}\n\n{}", arguments::USAGE);
    ExitCode::from(2)
}

fn execute(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Run => Ok(runtime.block_on(run::run(Config::read(variable)?))?),
        Command::Wait { timeout, termination_log } => {
            let waited = WaitConfig::read(variable)
                .map_err(anyhow::Error::from)
                .and_then(|config| runtime.block_on(wait::until_ready(&config, timeout)).map_err(anyhow::Error::from));
            waited.inspect_err(|error| leave_message(&termination_log, &format!("{error:#}")))
        }
    }
}

/// What `kubectl describe pod` shows of the container's end. Without it the reason is still in the log.
fn leave_message(path: &Path, message: &str) {
    if let Err(error) = std::fs::write(path, message) {
        tracing::warn!(%error, path = %path.display(), "cannot leave the termination message");
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
