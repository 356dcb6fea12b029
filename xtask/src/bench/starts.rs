//! Measures pod starts with and without the agent on its own cluster: start, measure, stop.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Result, bail};

use crate::cluster::{self, Cluster};
use crate::e2e::environment;
use crate::images::{self, Build, Group};
use crate::sh::{Run as _, cmd};
use crate::{deps, product};

/// The cluster's name.
const NAME: &str = "bench";

const PROGRAM: &str = "countersign-e2e-starts";

/// Measures pod starts; returns the output of the program.
pub(super) fn run(root: &Path) -> Result<String> {
    if cluster::is_given(root) {
        bail!("KUBECONFIG is set: starts are timed by this machine's clock, on a cluster of its own; unset it");
    }
    deps::for_tests()?;
    cmd("cargo", ["build", "--quiet", "--package", "countersign-e2e", "--bin", PROGRAM]).current_dir(root).run()?;
    let archives = images::make(root, &[Group::Product, Group::Demo], Build::Release)?;
    cluster::down(root, NAME)?;
    let measured = cluster::up(root, NAME).and_then(|cluster| measure(root, &cluster, &archives));
    cluster::down(root, NAME)?;
    measured
}

fn measure(root: &Path, cluster: &Cluster, archives: &[std::path::PathBuf]) -> Result<String> {
    let changed = cluster.load(archives)?;
    product::install(root, cluster, changed)?;
    let mut command = cmd(root.join("target/debug").join(PROGRAM), [""; 0]);
    environment(&mut command, root, cluster, None)?.current_dir(root).stderr(Stdio::inherit()).read()
}
