//! The agent's command line.

mod arguments;

use std::path::Path;
use std::process::ExitCode;

use arguments::{Arguments, Command};
use countersign_agent::config::{Config, WaitConfig};
use countersign_agent::{run, telemetry, wait};

fn main() -> ExitCode {
    if let Err(error) = disable_dumping() {
        return report_missing_protection(error);
    }
    let command = match arguments::read(lexopt::Parser::from_env()) {
        Ok(Arguments::Execute(command)) => command,
        Ok(Arguments::Print(text)) => return print(&text),
        Err(error) => return report_usage_error(&error),
    };
    telemetry::install(env_var(countersign_contract::environment::LOG).as_deref());
    match execute(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes this process not dumpable before it reads any secret: other processes of the same user cannot follow
/// `/proc/<pid>/root` to the token or read the memory that holds keys, and no core is written. In its image the program is
/// executable but not readable (mode 0111), so that the kernel does the same from the first instruction; this call also
/// covers other copies of the program, and systems where `fs.suid_dumpable` is set.
fn disable_dumping() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)
}

/// The agent does not run unprotected: other processes of the pod could take its identity.
#[expect(clippy::print_stderr, reason = "there is no log before its filter is known")]
fn report_missing_protection(error: nix::errno::Errno) -> ExitCode {
    eprintln!(
        "error: cannot keep other processes from this one's memory and files (prctl PR_SET_DUMPABLE: {error}); does a seccomp profile of the container forbid prctl?"
    );
    ExitCode::FAILURE
}

/// The output of `--help` and `--version`.
#[expect(clippy::print_stdout, reason = "the output of --help and --version")]
fn print(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

/// The exit code is 2, as usual for an invalid command line.
#[expect(clippy::print_stderr, reason = "there is no log before its filter is known")]
fn report_usage_error(error: &lexopt::Error) -> ExitCode {
    eprintln!("error: {error}\n\n{}", arguments::USAGE);
    ExitCode::from(2)
}

fn execute(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Probe(probe) => report(&runtime.block_on(probe.run())),
        Command::Run => Ok(runtime.block_on(run::run(Config::read(env_var)?))?),
        Command::Wait { timeout, termination_log } => {
            let result = WaitConfig::read(env_var)
                .map_err(anyhow::Error::from)
                .and_then(|config| runtime.block_on(wait::until_ready(&config, timeout)).map_err(anyhow::Error::from));
            result.inspect_err(|error| write_termination_message(&termination_log, &format!("{error:#}")))
        }
    }
}

/// Prints what came of a probe, for the program that reads the log of its container.
#[expect(clippy::print_stdout, reason = "the output of a probe")]
fn report(report: &countersign_agent::probe::Report) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

/// Writes the message that `kubectl describe pod` shows. If that fails the reason is still in the log.
fn write_termination_message(path: &Path, message: &str) {
    if let Err(error) = std::fs::write(path, message) {
        tracing::warn!(%error, path = %path.display(), "cannot leave the termination message");
    }
}

fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
