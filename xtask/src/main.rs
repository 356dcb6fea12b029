//! The project's own commands: a cluster, images, the product on the cluster, code generation, tests, figures.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

mod bench;
#[cfg(test)]
mod boundaries;
mod build;
mod clients;
mod cluster;
mod codegen;
mod conformance;
mod demo;
mod deps;
mod e2e;
mod fault;
mod federated;
mod fuzz;
mod image;
mod images;
mod krew;
mod kube;
mod product;
mod progress;
mod python;
#[cfg(test)]
mod requirements;
mod semver;
mod sh;
mod soak;
mod test;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster with the product, the samples and two demo workloads; prints who called whom.
    Up {
        #[command(flatten)]
        cluster: Name,
        /// Two clusters that federate, each with a workload that calls one of the other.
        #[arg(long)]
        federated: bool,
    },
    /// End everything that `up` started; nothing is left.
    Down(Name),
    /// Build images, as OCI archives in target/images.
    Images {
        /// Images such as `agent`; all if none is named.
        names: Vec<String>,
        /// Use the faster build profile of `up` instead of the release profile.
        #[arg(long)]
        quick: bool,
    },
    /// Load an image archive into the running cluster.
    Load {
        /// An OCI archive.
        archive: PathBuf,
        #[command(flatten)]
        cluster: Name,
    },
    /// Install the programs of others that the end-to-end tests run on this machine; prints the variables that say where they are.
    Clients,
    /// Write the generated files: Rust from crates/proto/proto, custom resource definitions from crds/.
    Codegen {
        /// Write nothing; fail when a file is stale.
        #[arg(long)]
        check: bool,
    },
    /// Examine clients of the Workload API, ours and others, by the conformance suite; writes docs/conformance.md.
    Conformance,
    /// Build `kubectl countersign` into `target/cluster/bin`.
    Plugin {
        /// Build a static program instead, and the archive and manifest by which krew installs it, in `target/krew`.
        #[arg(long)]
        krew: bool,
        /// Where the archive is going to be published; for krew's manifest.
        #[arg(long, requires = "krew")]
        uri: Option<String>,
    },
    /// Compare what countersign-verify and go-spiffe make of malformed ids, certificates and tokens.
    Differences {
        /// For how long, in seconds.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Repeat an earlier comparison.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Compare the API of countersign-verify with that of another commit: a break without a new major version is an error.
    Semver {
        /// The commit to compare with.
        #[arg(default_value = "origin/main")]
        baseline: String,
    },
    /// Formatting, lints, licences, unit and property tests, then end-to-end tests on a cluster of their own.
    Test(test::Options),
    /// The long tests of faults, on a cluster of their own; writes docs/reports/soak.md.
    Soak(soak::Options),
    /// Fuzz the parsers of untrusted bytes; shared inputs are in fuzz/corpus.
    Fuzz(fuzz::Options),
    /// Run the benches; writes target/bench/report.json and a table.
    Bench(bench::Options),
    /// Manage the cluster alone, without the product.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Break a part of our own cluster for as long as standard input is open.
    Fault(fault::Options),
    /// Becomes the node of a cluster, as pid 1 of its namespaces.
    #[command(hide = true)]
    NodeInit {
        #[arg(long)]
        name: String,
        #[arg(long)]
        number: u8,
        #[arg(long)]
        api_server_only: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Start the cluster, or find it running.
    Up {
        #[command(flatten)]
        cluster: Name,
        /// Only etcd and the API server: no controller and no kubelet acts on stored objects. Always a cluster of our own.
        #[arg(long)]
        api_server_only: bool,
    },
    /// End the cluster; nothing is left.
    Down(Name),
    /// Print the state of the cluster.
    Status(Name),
}

#[derive(Debug, clap::Args)]
struct Name {
    /// The cluster's name: several clusters can run side by side.
    #[arg(long, default_value = cluster::DEFAULT)]
    name: String,
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let root = root()?;
    match command {
        Command::Up { cluster: Name { name }, federated: true } => federated::up(&root, &name),
        Command::Up { cluster: Name { name }, .. } => product::up(&root, &name),
        Command::Down(Name { name }) => product::down(&root, &name),
        Command::Images { names, quick } => {
            let build = if quick { images::Build::Quick } else { images::Build::Release };
            images::make_named(&root, &names, build).map(drop)
        }
        Command::Plugin { krew: true, uri } => krew::package(&root, uri.as_deref()),
        Command::Plugin { .. } => product::plugin(&root).map(drop),
        Command::Test(options) => test::run(&root, &options),
        Command::Fuzz(options) => fuzz::run(&root, &options),
        Command::Bench(options) => bench::run(&root, &options),
        Command::Soak(options) => soak::run(&root, &options),
        Command::Fault(options) => fault::run(&root, &options),
        Command::Load { archive, cluster } => cluster::find(&root, &cluster.name)?.load(&[archive]).map(drop),
        Command::Clients => {
            clients::install(&root)?.iter().for_each(|(name, value)| progress::say(format!("export {name}={value}")));
            Ok(())
        }
        Command::Conformance => conformance::run(&root),
        Command::Differences { seconds, seed } => conformance::differences(&root, seconds, seed),
        Command::Semver { baseline } => semver::check(&root, &baseline),
        Command::Codegen { check } => codegen::run(&root, check),
        Command::Cluster(ClusterCommand::Up { cluster: Name { name }, api_server_only: true }) => {
            cluster::up_api_server(&root, &name)?.report()
        }
        Command::Cluster(ClusterCommand::Up { cluster: Name { name }, .. }) => cluster::up(&root, &name)?.report(),
        Command::Cluster(ClusterCommand::Down(Name { name })) => cluster::down(&root, &name),
        Command::Cluster(ClusterCommand::Status(Name { name })) => cluster::find(&root, &name)?.report(),
        Command::NodeInit { name, number, api_server_only } => {
            let extent = if api_server_only { cluster::Extent::ApiServer } else { cluster::Extent::Whole };
            cluster::node_init(&cluster::layout(&root, &name, number)?, extent)
        }
    }
}

/// The repository's root: the folder above this crate.
fn root() -> Result<PathBuf> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(crate_dir.parent().context("xtask lies in the repository's root")?.to_owned())
}
