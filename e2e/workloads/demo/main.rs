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
mod hostile;
mod look;
mod proc;
mod report;
mod serve;
mod tls;
mod tokens;
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
    /// Accept mTLS from the allowed ids, and tell each caller the identity that it presented.
    Serve {
        /// The address to listen on.
        #[arg(long)]
        listen: SocketAddr,
        /// A SPIFFE ID that may call; may be repeated.
        #[arg(long, required = true)]
        allow: Vec<SpiffeId>,
        /// Require a JWT-SVID for this audience from each caller, and validate it.
        #[arg(long)]
        audience: Option<String>,
    },
    /// Call a server repeatedly, each time over a new connection with a full handshake.
    Call {
        /// HOST:PORT.
        #[arg(long)]
        target: String,
        /// The expected SPIFFE ID of the server.
        #[arg(long)]
        expect: SpiffeId,
        /// The pause between two calls of one caller.
        #[arg(long, default_value = "1s", value_parser = span)]
        every: Duration,
        /// The total number of calls; unlimited if absent.
        #[arg(long)]
        count: Option<u64>,
        /// Concurrent callers.
        #[arg(long, default_value_t = 1)]
        concurrency: u32,
        /// Send a JWT-SVID for this audience with each call.
        #[arg(long)]
        audience: Option<String>,
        /// After the calls, wait for termination instead of exiting.
        #[arg(long)]
        stay: bool,
    },
    /// Fetch and watch the Workload API, and exit after this many X.509 updates.
    Watch {
        /// Audience of the JWT-SVID to fetch and validate.
        #[arg(long)]
        audience: Option<String>,
        /// The number of X.509 updates to wait for.
        #[arg(long, default_value_t = 1)]
        updates: u32,
    },
    /// Report the credential bundle at the start of the program, and stay idle.
    FirstInstruction {
        /// Exit at once instead of staying idle.
        #[arg(long)]
        exit: bool,
    },
    /// Read the credential files repeatedly until they have changed this often, and report whether key and certificate
    /// always matched.
    ReadFiles {
        /// The number of changes to wait for.
        #[arg(long)]
        changes: usize,
    },
    /// Stay idle until terminated.
    Hold,
    /// Write files to standard output.
    Cat {
        /// The files.
        files: Vec<PathBuf>,
    },
    /// List a folder and its subfolders.
    Ls {
        /// The folder.
        folder: PathBuf,
    },
    /// Print type, mode and owner of files.
    Stat {
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Report which parts of other processes are readable through `/proc`.
    LookInto {
        /// Names of the programs to look for.
        #[arg(required = true)]
        programs: Vec<String>,
    },
    /// Call the Workload API with a hand-written request and print the gRPC status code.
    WorkloadApi {
        /// The method, such as FetchX509SVID.
        #[arg(long, default_value = "FetchX509SVID")]
        method: String,
        /// Leave out the metadata that protects against SSRF.
        #[arg(long)]
        without_metadata: bool,
    },
    /// Write a JWT-SVID to standard output.
    Token {
        /// Its audience.
        #[arg(long)]
        audience: String,
    },
    /// Serve bundle documents over HTTPS, each path in another way that no bundle endpoint should.
    HostileEndpoint {
        /// The address to listen on.
        #[arg(long)]
        listen: SocketAddr,
        /// The server's certificate chain, PEM.
        #[arg(long)]
        certificate: PathBuf,
        /// Its key, PEM.
        #[arg(long)]
        key: PathBuf,
        /// A word of ASCII letters, digits and hyphens that is in every answer.
        #[arg(long)]
        marker: String,
    },
}

fn main() -> ExitCode {
    // Before anything else: the point is whether the identity exists at the first instruction.
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
        Command::Serve { listen, allow, audience } => serve::run(listen, allow, audience).await,
        Command::Call { target, expect, every, count, concurrency, audience, stay } => {
            call::run(call::Calls { target, expect, every, count, concurrency, audience }).await?;
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
        Command::HostileEndpoint { listen, certificate, key, marker } => {
            hostile::run(listen, &certificate, &key, marker).await
        }
    }
}

/// Waits for a termination signal. As PID 1 the process would otherwise ignore SIGTERM.
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
