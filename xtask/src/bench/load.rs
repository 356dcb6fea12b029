//! The load driver on an API server of its own: started, filled, measured, ended.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Result;

use crate::cluster;
use crate::deps::MUSL;
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

/// Returns what the driver printed.
pub(super) fn run(root: &Path, size: &Size) -> Result<String> {
    let packages = ["--package", "countersign-operator", "--package", "countersign-load"];
    cmd("cargo", ["build", "--quiet", "--release"]).args(packages).current_dir(root).run()?;
    cluster::down_own(root, NAME)?;
    let cluster = cluster::up_api_server(root, NAME)?;
    let arguments =
        [("pods", size.pods), ("identities", size.identities), ("nodes", size.nodes), ("agents", size.agents)];
    let arguments = arguments.map(|(name, count)| format!("--{name}={count}"));
    let measured = cmd(root.join("target/release/countersign-load"), ["--json"])
        .arg(format!("--operator={}", operator(root).display()))
        .args(arguments)
        .env("KUBECONFIG", &cluster.kubectl.kubeconfig)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .read();
    cluster::down_own(root, NAME)?;
    measured
}

/// The image's binary if it was made: its allocator is another one.
fn operator(root: &Path) -> PathBuf {
    let image = root.join("target").join(MUSL).join("release/countersign-operator");
    if image.is_file() { image } else { root.join("target/release/countersign-operator") }
}
