//! A service in a chain of calls, by the layers of `countersign-verify`: its callers and its own calls are authenticated in any of the four
//! ways. Also a caller alone, and a neighbour on the way that records, alters and repeats what it forwards.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use clap::{Parser, Subcommand};
use countersign_verify::{Source, proof::Method};

mod call;
mod neighbour;
mod serve;
mod show;
mod tls;

#[derive(Debug, Parser)]
#[command(name = "countersign-hop", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer with who calls and how that was proven, followed by the answer of the next service.
    Serve {
        /// The address to listen on.
        #[arg(long)]
        listen: SocketAddr,
        #[command(flatten)]
        accept: serve::Accept,
        #[command(flatten)]
        next: Option<call::Next>,
    },
    /// Call a service, and print what it answers.
    Call {
        #[command(flatten)]
        next: call::Next,
        /// How often.
        #[arg(long, default_value_t = 1)]
        count: u64,
        /// The pause between two calls.
        #[arg(long, default_value = "0", value_parser = milliseconds)]
        every_ms: Duration,
    },
    /// Call a service again and again: with a proof, with the same proof, and with a signature. Print what it answers.
    Show(show::Shown),
    /// Forward connections and requests, and keep them to repeat them when that is asked for.
    Neighbour(neighbour::Options),
    /// Stay idle until terminated.
    Hold,
    /// Ask the neighbour in this pod: print the answer to `POST PATH`.
    Ask {
        /// Of the neighbour's control address.
        #[arg(long)]
        port: u16,
        /// `/replay/PORT/HOST:PORT`, with `same` for the place that it was for, or `/alter/WHAT`.
        path: String,
    },
}

fn milliseconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse()?))
}

fn method(text: &str) -> Result<Method> {
    text.parse().map_err(|error| anyhow!("{error}"))
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = tokio::select! {
        outcome = run(Args::parse().command) => outcome,
        _ = terminated() => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&serde_json::json!({"event": "error", "error": format!("{error:#}")}));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve { listen, accept, next } => serve::run(listen, accept, next).await,
        Command::Call { next, count, every_ms } => call::run(next, count, every_ms).await,
        Command::Show(shown) => show::run(shown).await,
        Command::Neighbour(options) => neighbour::run(options).await,
        Command::Hold => std::future::pending().await,
        Command::Ask { port, path } => neighbour::ask(port, &path).await,
    }
}

/// As PID 1 of a container a program gets no default handler.
async fn terminated() {
    if let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        signal.recv().await;
    }
}

/// The credentials of this workload, once there are any.
async fn source() -> Result<Source> {
    let source = Source::from_env()?.ready_to_validate_jwt_svids().await.context("the Workload API")?;
    source.ready_to_verify_wits().await.context("the Workload API")
}

/// A line on standard output.
#[expect(clippy::print_stdout, reason = "this is what the program has to say")]
fn say(line: &serde_json::Value) {
    println!("{line}");
}
