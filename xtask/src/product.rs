//! The product on a cluster: installs it from `manifests/`, runs the demo, and uninstalls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cluster::{self, Cluster};
use crate::images::{self, Build, Group};
use crate::kube::Kubectl;
use crate::progress::{Progress, say};
use crate::sh::{Run as _, cmd, wait_for};
use crate::{build, demo, federated};

pub(crate) use countersign_contract::objects::SYSTEM_NAMESPACE as SYSTEM;
/// The program of `kubectl countersign`.
pub(crate) const PLUGIN: &str = "kubectl-countersign";
const ROLLOUT: Duration = Duration::from_secs(180);
const ADMISSION: Duration = Duration::from_secs(60);

/// `cargo xtask up`: cluster, product, demo; prints who called whom.
pub(crate) fn up(root: &Path, name: &str) -> Result<()> {
    let cluster = cluster::up(root, name)?;
    let archives = images::make(root, &[Group::Product, Group::Demo], Build::Quick)?;
    let changed = cluster.load(&archives)?;
    let kubectl = &cluster.kubectl;
    install(root, &cluster, changed)?;
    run_demo(root, kubectl, changed)?;
    let plugin = plugin(root)?;
    print_next_steps(kubectl, &plugin);
    Ok(())
}

/// Builds `kubectl countersign`, and puts it beside kubectl.
pub(crate) fn plugin(root: &Path) -> Result<PathBuf> {
    let progress = Progress::start("build kubectl countersign");
    let args = ["build", "--quiet", "--profile", "quick", "--package", "countersign-cli", "--target-dir", "target"];
    cmd("cargo", args).current_dir(root).quiet()?;
    let (built, to) = (root.join("target/quick").join(PLUGIN), build::bin(root).join(PLUGIN));
    fs::create_dir_all(build::bin(root))?;
    fs::copy(&built, &to).with_context(|| format!("copying {} to {}", built.display(), to.display()))?;
    progress.done(to.display());
    Ok(to)
}

/// Applies samples and demo, and prints who called whom. `changed`: the images are newer than the running pods.
pub(crate) fn run_demo(root: &Path, kubectl: &Kubectl, changed: bool) -> Result<()> {
    let progress = Progress::start("install the demo");
    let there = kubectl.exists("namespace", demo::NAMESPACE);
    for part in ["samples", "demo"] {
        kubectl.apply(&root.join("manifests").join(part))?;
    }
    demo::adopt_authorities(kubectl)?;
    if changed && there {
        kubectl.restart(demo::NAMESPACE)?;
    }
    kubectl.wait_for_rollouts(demo::NAMESPACE, ROLLOUT)?;
    progress.done("its workloads run");
    demo::report(kubectl)
}

/// Deletes what [`run_demo`] applied.
pub(crate) fn delete_demo(root: &Path, kubectl: &Kubectl) -> Result<()> {
    ["demo", "samples"].iter().try_for_each(|part| kubectl.delete(&root.join("manifests").join(part)))
}

/// Installs definitions, operator and webhook, and waits until they serve. `changed`: the images are newer than the running
/// pods.
pub(crate) fn install(root: &Path, cluster: &Cluster, changed: bool) -> Result<()> {
    install_from(root, cluster, "manifests/base", changed)
}

/// As [`install`], from another kustomization that contains `manifests/base`.
pub(crate) fn install_from(root: &Path, cluster: &Cluster, manifests: &str, changed: bool) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let progress = Progress::start("install the product");
    let there = kubectl.exists("namespace", SYSTEM);
    kubectl.apply(&root.join(manifests))?;
    kubectl.wait_for_crds(&root.join("manifests/base/crds"))?;
    if changed && there {
        kubectl.restart(SYSTEM)?;
    }
    kubectl.wait_for_rollouts(SYSTEM, ROLLOUT)?;
    wait_for_admission(root, kubectl)?;
    progress.done("operator and webhook serve");
    Ok(())
}

/// Ready pods are not yet reachable through their Service on every node, so this waits until the API server reaches the
/// webhook.
fn wait_for_admission(root: &Path, kubectl: &Kubectl) -> Result<()> {
    let sample = root.join("manifests/samples/trustdomain.yaml");
    wait_for("the API server reaches the webhook", ADMISSION, || {
        let ask = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename"];
        kubectl.cmd(&ask).arg(&sample).read().map(Some)
    })
    .map(drop)
}

/// `cargo xtask down`: ends our own cluster; uninstalls from a cluster of `KUBECONFIG`.
pub(crate) fn down(root: &Path, name: &str) -> Result<()> {
    if cluster::is_given(root) {
        let cluster = cluster::find(root, name)?;
        let progress = Progress::start("remove demo and product");
        delete_demo(root, &cluster.kubectl)?;
        cluster.kubectl.delete(&root.join("manifests/uninstall"))?;
        progress.done("removed; the authorities stay in the namespace countersign-authorities");
        return Ok(());
    }
    // Of `up --federated`; ending what is not there does nothing.
    cluster::down(root, &federated::peer(name))?;
    cluster::down(root, name)
}

fn print_next_steps(kubectl: &Kubectl, plugin: &Path) {
    say("\nTo look further:");
    say(format!("  export KUBECONFIG={}", kubectl.kubeconfig.display()));
    if let Some(dir) = plugin.parent() {
        say(format!("  export PATH={}:$PATH", dir.display()));
    }
    say("  kubectl countersign check");
    say("  kubectl countersign status");
    say("  kubectl get trustdomains,workloadidentities --all-namespaces");
    say(format!("  kubectl --namespace {} get pods", demo::NAMESPACE));
    say(format!("  kubectl --namespace {} logs --follow --selector app=caller --container caller", demo::NAMESPACE));
    say(format!("  kubectl --namespace {SYSTEM} logs --follow deployment/countersign-operator"));
    say("  cargo xtask down            # ends it; nothing is left");
}
