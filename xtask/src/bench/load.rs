//! Runs the load driver on its own API server: start, fill, measure, stop.

use std::path::Path;
use std::process::Stdio;

use anyhow::Result;

use crate::cluster;
use crate::images::{self, Build};
use crate::sh::{Run as _, cmd};

/// The cluster's name.
const NAME: &str = "load";

/// How much the API server is filled with.
#[derive(Debug, clap::Args)]
pub(super) struct Size {
    #[arg(long, default_value_t = 100_000, requires = "load")]
    pods: usize,
    #[arg(long, default_value_t = 10_000, requires = "load")]
    identities: usize,
    #[arg(long, default_value_t = 1_000, requires = "load")]
    nodes: usize,
    /// How many agents connect.
    #[arg(long, default_value_t = 10_000, requires = "load")]
    agents: usize,
}

/// How many WorkloadIdentities a crowded namespace has.
const CROWD: usize = 20_000;

/// Measures the operator under load; returns what the driver printed.
pub(super) fn run(root: &Path, size: &Size) -> Result<String> {
    let arguments =
        [("pods", size.pods), ("identities", size.identities), ("nodes", size.nodes), ("agents", size.agents)];
    drive(root, &arguments.map(|(name, count)| format!("--{name}={count}")))
}

/// Measures what a crowded namespace costs a pod elsewhere; returns what the driver printed.
pub(super) fn crowd(root: &Path) -> Result<String> {
    drive(root, &[format!("--crowd={CROWD}")])
}

fn drive(root: &Path, arguments: &[String]) -> Result<String> {
    // The operator as it is in its image: with that allocator, and that C library.
    let programs = ["countersign-operator", "countersign-load"];
    let built = images::build_static(root, &programs.map(|program| (program, program)), Build::Release)?;
    cluster::down_own(root, NAME)?;
    let cluster = cluster::up_api_server(root, NAME)?;
    let measured = cmd(built.join("countersign-load"), ["--json"])
        .arg(format!("--operator={}", built.join("countersign-operator").display()))
        .args(arguments)
        .env("KUBECONFIG", &cluster.kubectl.kubeconfig)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .read();
    cluster::down_own(root, NAME)?;
    measured
}
