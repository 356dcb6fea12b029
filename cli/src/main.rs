//! `kubectl countersign`: reads objects with the caller's rights and decides by the crates that the operator decides by, so that it says
//! what the operator would. It has no server.

mod access;
mod authority;
mod bundle;
mod bundles;
mod check;
mod cluster;
mod completion;
mod discover;
mod explain;
mod federation;
mod files;
mod finding;
mod identity;
mod installation;
mod objects;
mod output;
mod policy;
mod probe;
mod proposal;
mod reading;
mod renew;
mod status;
mod sysdump;
mod times;
mod trust_domains;
mod verify;
mod why;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use cluster::Cluster;
use output::{Format, Report};

/// One command from a question about identities to its answer.
#[derive(Debug, Parser)]
#[command(name = "kubectl-countersign", bin_name = "kubectl countersign", version)]
struct Args {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The form of the output.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// The namespace; that of the context if absent.
    #[arg(long, short, global = true)]
    namespace: Option<String>,
    /// The context of the kubeconfig; the current one if absent.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig; that of kubectl if absent.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Status(status::Args),
    Sysdump(sysdump::Args),
    Probe(probe::Args),
    Why(why::Args),
    Discover(discover::Args),
    Explain(explain::Args),
    Completion(completion::Args),
    /// What policies give to whom, without changing anything.
    #[command(subcommand)]
    Policy(policy::Command),
    /// The bundles by which the SVIDs of each trust domain are verified.
    #[command(subcommand)]
    Bundle(bundle::Command),
    Verify(verify::Args),
    Identity(identity::Args),
    /// The bundles of remote trust domains, and who gets them.
    #[command(subcommand)]
    Federation(federation::Command),
    Renew(renew::Args),
    Rotate(authority::RotateArgs),
    Taint(authority::TaintArgs),
    Revoke(authority::RevokeArgs),
}

/// How a command ended, which is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 0: all is well, or what was asked for was done.
    Well,
    /// 1: there is an answer, and it names a problem.
    Problem,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { options, command } = Args::parse();
    match run(command, &options).await {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::Problem) => ExitCode::FAILURE,
        // There is no answer.
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

async fn run(command: Command, options: &Options) -> Result<Outcome> {
    match command {
        Command::Check(args) => check::run(args, options).await,
        Command::Status(args) => status::run(args, options).await,
        Command::Sysdump(args) => sysdump::run(args, options).await,
        Command::Probe(args) => probe::run(args, options).await,
        Command::Why(args) => why::run(args, options).await,
        Command::Policy(command) => policy::run(command, options).await,
        Command::Discover(args) => discover::run(args, options).await,
        Command::Explain(args) => explain::run(args, options),
        Command::Completion(args) => completion::run::<Args>(&args),
        Command::Bundle(command) => bundle::run(command, options).await,
        Command::Verify(args) => verify::run(args, options).await,
        Command::Identity(args) => identity::run(args, options).await,
        Command::Federation(command) => federation::run(command, options).await,
        Command::Renew(args) => renew::run(args, options).await,
        Command::Rotate(args) => authority::rotate(args, options).await,
        Command::Taint(args) => authority::taint(args, options).await,
        Command::Revoke(args) => authority::revoke(args, options).await,
    }
}

impl Options {
    /// Connects to the cluster that the options name.
    async fn cluster(&self) -> Result<Cluster> {
        Cluster::connect(self).await
    }

    /// Connects to the cluster of another context of the same kubeconfig.
    async fn cluster_of(&self, context: &str) -> Result<Cluster> {
        let options = Self {
            output: self.output,
            namespace: self.namespace.clone(),
            context: Some(context.to_owned()),
            kubeconfig: self.kubeconfig.clone(),
        };
        Cluster::connect(&options).await
    }

    /// Prints a report in the form that was asked for.
    fn print(&self, report: &impl Report) -> Result<()> {
        output::print(report, self.output)
    }
}
