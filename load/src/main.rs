//! The load driver. It fills the API server of `KUBECONFIG` with nodes, identities and pods, runs the operator's binary,
//! connects real agent sessions, and reports the cost. It needs an API server of its own, without controllers and kubelets
//! (`cargo xtask cluster up --api-server-only`), which `cargo xtask bench --load` creates.
//!
//! Figures go to standard output (with `--json` one object a line: name, value, unit), progress to standard error.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a command that a person follows")]

mod baseline;
mod bundle_endpoint;
mod cluster;
mod counts;
mod cpu_cost;
mod crowd;
mod dataset;
mod figures;
mod fill;
mod foreign;
mod hostile;
mod install;
mod machine;
mod measure;
mod metrics;
mod operator;
mod pod;
mod relay;
mod remotes;
mod rotation;
mod rounds;
mod run;
mod sessions;
mod streams;
mod tokens;
mod waits;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use clap::Parser;

use countersign_contract::environment::LOG;

use crate::{dataset::Dataset, figures::Figures};

/// Fills an API server and measures the operator under it.
#[derive(Clone, Debug, Parser)]
#[command(name = "countersign-load", version)]
struct Options {
    /// The number of pods.
    #[arg(long, default_value_t = 100_000)]
    pods: usize,
    /// The number of WorkloadIdentities, each with its own service account.
    #[arg(long, default_value_t = 10_000)]
    identities: usize,
    /// The number of Node objects.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// The number of connected agents, each for a pod of its own; at most the number of pods.
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Concurrent requests to the API server.
    #[arg(long, default_value_t = 64)]
    parallel: usize,
    /// Duration of each measurement of the issue rate, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The operator's binary.
    #[arg(long, default_value = "target/release/countersign-operator")]
    operator: PathBuf,
    /// The operator's role, with which it runs here as in a cluster.
    #[arg(long, default_value = "manifests/base/operator/rbac.yaml")]
    rbac: PathBuf,
    /// Only fill.
    #[arg(long)]
    fill_only: bool,
    /// Skip the measurement with few pods: for a repeated run on a filled cluster.
    #[arg(long)]
    full_only: bool,
    /// Measure only real agents: their connection, a roll-out, rotation, and federation.
    #[arg(long, conflicts_with = "fill_only")]
    agents_only: bool,
    /// Measure only federation, with at most 1,000 agents and as many pods.
    #[arg(long, conflicts_with_all = ["fill_only", "full_only", "agents_only"])]
    foreign_only: bool,
    /// Measure only the cost of a namespace with this many overlapping WorkloadIdentities to a pod of another.
    #[arg(long, value_name = "IDENTITIES", conflicts_with_all = ["fill_only", "full_only", "agents_only", "foreign_only"])]
    crowd: Option<usize>,
    /// Run as a relay between agents and issuer; used only by this program itself.
    #[arg(long, hide = true, value_name = "NUMBER")]
    relay: Option<u8>,
    /// Run as hostile peers of the issuer at this address; used only by this program itself.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    hostile: Option<SocketAddr>,
    /// Print figures as JSON.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn dataset(&self) -> Dataset {
        Dataset { pods: self.pods, identities: self.identities.max(1), nodes: self.nodes.max(1) }
    }
}

/// The operator's allocator, so that the callers are not slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let filter = tracing_subscriber::EnvFilter::try_from_env(LOG).unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if let Some(number) = options.relay {
        return relay::serve(number).await;
    }
    if let Some(issuer) = options.hostile {
        return hostile::attack(issuer).await;
    }
    run::run(&options, &Figures::new(options.json)).await
}
