//! The agent's command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use countersign_agent::config::{Config, WaitConfig};
use countersign_agent::{run, telemetry, wait};

/// Holds the key beside the workload. Configured by its environment, COUNTERSIGN_*.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve every session until SIGTERM.
    Run,
    /// Return once every session has an identity.
    Wait {
        /// How long to wait, such as 20s or 1m.
        #[arg(long, default_value = "20s", value_parser = span)]
        timeout: Duration,
        /// Where the reason goes when the time is over.
        #[arg(long, default_value = "/dev/termination-log")]
        termination_log: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    telemetry::install(variable("COUNTERSIGN_LOG").as_deref());
    match execute(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
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

/// Seconds, also with `ms`, `s` or `m`.
fn span(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| "wanted is a number with ms, s or m, such as 20s".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("{unit:?} is no unit: ms, s and m are")),
    }
}
