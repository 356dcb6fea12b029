//! Runs the load driver on its own API server: start, fill, measure, stop.

use std::path::Path;
use std::process::Stdio;

use anyhow::Result;

use crate::cluster;
use crate::images::{self, Build};
use crate::sh::{Run as _, cmd};

/// The cluster's name.
const NAME: &str = "load";

/// The size of the dataset.
#[derive(Debug, clap::Args)]
pub(super) struct Size {
    #[arg(long, default_value_t = 100_000, requires = "load")]
    pods: usize,
    #[arg(long, default_value_t = 10_000, requires = "load")]
    identities: usize,
    #[arg(long, default_value_t = 1_000, requires = "load")]
    nodes: usize,
    /// The number of connected agents.
    #[arg(long, default_value_t = 10_000, requires = "load")]
    agents: usize,
}

/// The number of WorkloadIdentities of the crowded namespace.
const CROWD: usize = 20_000;

/// Measures the operator under load; returns the output of the load driver.
pub(super) fn run(root: &Path, size: &Size) -> Result<String> {
    let arguments =
        [("pods", size.pods), ("identities", size.identities), ("nodes", size.nodes), ("agents", size.agents)];
    drive(root, &arguments.map(|(name, count)| format!("--{name}={count}")))
}

/// Measures the cost of a crowded namespace to a pod of another; returns the output of the load driver.
pub(super) fn crowd(root: &Path) -> Result<String> {
    drive(root, &[format!("--crowd={CROWD}")])
}

/// Measures federation with connected agents; returns the output of the load driver.
pub(super) fn foreign(root: &Path) -> Result<String> {
    drive(root, &["--foreign-only".to_owned()])
}

fn drive(root: &Path, arguments: &[String]) -> Result<String> {
    // The operator as in its image: with the same allocator and C library.
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
