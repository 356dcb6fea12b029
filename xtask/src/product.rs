//! The product on a cluster: installs it from `manifests/`, runs the demo, and uninstalls it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::{self, Cluster};
use crate::images::{self, Build, Group};
use crate::kube::Kubectl;
use crate::progress::{Progress, say};
use crate::sh::{Run as _, wait_for};
use crate::{demo, federated};

pub(crate) use countersign_contract::objects::SYSTEM_NAMESPACE as SYSTEM;
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
    print_next_steps(kubectl);
    Ok(())
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

fn print_next_steps(kubectl: &Kubectl) {
    say("\nTo look further:");
    say(format!("  export KUBECONFIG={}", kubectl.kubeconfig.display()));
    if let Some(dir) = kubectl.program.parent() {
        say(format!("  export PATH={}:$PATH", dir.display()));
    }
    say("  kubectl get trustdomains,workloadidentities --all-namespaces");
    say(format!("  kubectl --namespace {} get pods", demo::NAMESPACE));
    say(format!("  kubectl --namespace {} logs --follow --selector app=caller --container caller", demo::NAMESPACE));
    say(format!("  kubectl --namespace {SYSTEM} logs --follow deployment/countersign-operator"));
    say("  cargo xtask down            # ends it; nothing is left");
}
