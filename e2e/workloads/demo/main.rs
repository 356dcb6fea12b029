//! The workload of the demonstration and of the end-to-end tests: a server and a client over mTLS, and a few tools for an
//! image without a shell. It gets its identity through the unmodified Rust package `spiffe`, as any application would.
//!
//! Every line on standard output is one JSON object with an `event`. No line contains a key or a token, except that of
//! `token`, which is meant for `kubectl exec`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use spiffe::SpiffeId;

mod call;
mod files;
mod first;
mod look;
mod proc;
mod report;
mod serve;
mod tls;
mod watch;
mod workload_api;

#[derive(Debug, Parser)]
#[command(name = "countersign-demo", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Accept mTLS from the ids allowed, and tell each caller whom it was seen as.
    Serve {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
        /// A SPIFFE ID that may call; may be repeated.
        #[arg(long, required = true)]
        allow: Vec<SpiffeId>,
    },
    /// Call a server again and again, each time over a new connection with a full handshake.
    Call {
        /// HOST:PORT.
        #[arg(long)]
        target: String,
        /// The SPIFFE ID which the server must have.
        #[arg(long)]
        expect: SpiffeId,
        /// The pause between two calls of one caller.
        #[arg(long, default_value = "1s", value_parser = span)]
        every: Duration,
        /// Calls in all before it ends; without end if absent.
        #[arg(long)]
        count: Option<u64>,
        /// Callers at the same time.
        #[arg(long, default_value_t = 1)]
        concurrency: u32,
        /// Having made its calls, wait to be ended instead of ending.
        #[arg(long)]
        stay: bool,
    },
    /// Fetch and watch what the Workload API gives, and end after so many X.509 updates.
    Watch {
        /// Audience of the JWT-SVID to fetch and validate.
        #[arg(long)]
        audience: Option<String>,
        /// X.509 updates to see.
        #[arg(long, default_value_t = 1)]
        updates: u32,
    },
    /// Say what the credential bundle held when the program started, and hold.
    FirstInstruction {
        /// End at once instead of holding.
        #[arg(long)]
        exit: bool,
    },
    /// Read the credential files over and over until they have changed so often, and say whether key and certificate always
    /// belonged together.
    ReadFiles {
        /// Changes to see.
        #[arg(long)]
        changes: usize,
    },
    /// Do nothing until ended.
    Hold,
    /// Write files to standard output.
    Cat {
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Name what is in a folder, and in its folders.
    Ls {
        /// The folder.
        folder: PathBuf,
    },
    /// Say kind, mode and owner of files.
    Stat {
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Say what of other processes can be looked into through `/proc`.
    LookInto {
        /// Names of the programs whose processes are looked for.
        #[arg(required = true)]
        programs: Vec<String>,
    },
    /// Call the Workload API by hand and print the gRPC status code.
    WorkloadApi {
        /// The method, such as FetchX509SVID.
        #[arg(long, default_value = "FetchX509SVID")]
        method: String,
        /// Leave out the metadata by which a caller shows that it is not an SSRF.
        #[arg(long)]
        without_metadata: bool,
    },
    /// Write a JWT-SVID to standard output.
    Token {
        /// Its audience.
        #[arg(long)]
        audience: String,
    },
}

fn main() -> ExitCode {
    // Before anything else: whether the identity is there at the first instruction is what is asked.
    let first = std::env::args().nth(1).is_some_and(|name| name == "first-instruction").then(first::Sight::now);

    match run(Args::parse().command, first) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&serde_json::json!({ "event": "error", "error": format!("{error:#}") }));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(command: Command, first: Option<first::Sight>) -> Result<()> {
    match command {
        Command::Serve { listen, allow } => serve::run(listen, allow).await,
        Command::Call { target, expect, every, count, concurrency, stay } => {
            call::run(call::Calls { target, expect, every, count, concurrency }).await?;
            if stay { ended().await } else { Ok(()) }
        }
        Command::Watch { audience, updates } => watch::run(audience.as_deref(), updates).await,
        Command::FirstInstruction { exit } => {
            first.context("nothing was looked at")?.report()?;
            if exit { Ok(()) } else { ended().await }
        }
        Command::ReadFiles { changes } => files::read(changes).await,
        Command::Hold => ended().await,
        Command::Cat { files } => look::cat(&files),
        Command::Ls { folder } => look::ls(&folder),
        Command::Stat { files } => look::stat(&files),
        Command::LookInto { programs } => proc::look_into(&programs),
        Command::WorkloadApi { method, without_metadata } => workload_api::call(&method, !without_metadata).await,
        Command::Token { audience } => watch::token(&audience).await,
    }
}

/// Returns once the program is asked to end. As PID 1 it would otherwise not hear SIGTERM at all.
async fn ended() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn span(text: &str) -> Result<Duration> {
    let span: jiff::SignedDuration = text.parse().context("a span such as 1s or 250ms")?;
    match Duration::try_from(span) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => bail!("a span above zero, such as 1s or 250ms"),
    }
}
