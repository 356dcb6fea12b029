//! Objects installed besides the workloads: spread constraints, disruption budgets and network policies.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    apply::documents,
    cluster::SYSTEM,
    kubectl,
    replicas::{OPERATOR, WEBHOOK, WEBHOOK_CA},
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::api::{apps::v1::Deployment, policy::v1::PodDisruptionBudget};
use kube::ResourceExt as _;

#[tokio::test]
async fn a_drain_may_not_take_all_replicas_at_once() {
    scenario("budgets", async |world| {
        world.settled().await?;
        let budgets = world.cluster.api::<PodDisruptionBudget>(SYSTEM);
        for name in [OPERATOR, WEBHOOK, WEBHOOK_CA] {
            let replicas = world.replicas(name).await?;
            // The status counts the pods: a budget that selects nothing protects nothing.
            let (stay, may_go) = until(&format!("the budget of {name} counts its pods"), DEFAULT_TIMEOUT, async || {
                let status = budgets.get(name).await?.status.unwrap_or_default();
                let counted = [status.expected_pods, status.current_healthy] == [Some(replicas); 2];
                let (stay, may_go) = (status.desired_healthy, status.disruptions_allowed);
                Ok(counted.then(|| (stay.unwrap_or(0), may_go.unwrap_or(0))))
            })
            .await?;
            ensure!(stay >= 1, "{name}: {stay} must stay");
            ensure!(replicas < 2 || may_go >= 1, "{name}: no node of it can be drained");
            ensure!(may_go < replicas, "{name}: all may go at once");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn replicas_are_spread_over_nodes_where_that_can_be() {
    scenario("spread", async |world| {
        for name in [OPERATOR, WEBHOOK, WEBHOOK_CA] {
            let spec = world.cluster.api::<Deployment>(SYSTEM).get(name).await?.spec.template;
            let labels = spec.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
            let constraints = spec.spec.and_then(|spec| spec.topology_spread_constraints).unwrap_or_default();
            ensure!(
                constraints.iter().any(|constraint| constraint.topology_key == "kubernetes.io/hostname"),
                "{name} is not spread over nodes: {constraints:?}"
            );
            for constraint in constraints {
                // A cluster with one node can also run two replicas.
                ensure!(constraint.when_unsatisfiable == "ScheduleAnyway", "{name}: {constraint:?}");
                let selected = constraint.label_selector.and_then(|selector| selector.match_labels).unwrap_or_default();
                ensure!(!selected.is_empty(), "{name}: a constraint that counts no pods");
                ensure!(
                    selected.iter().all(|label| labels.get_key_value(label.0) == Some(label)),
                    "{name}: {selected:?}"
                );
            }
        }
        Ok(())
    })
    .await;
}

/// As a component beside the base, as its first lines describe. Whether a network plugin enforces the policies is not
/// tested.
#[tokio::test]
async fn the_api_server_accepts_the_network_policies_beside_the_base() {
    scenario("network", async |_| {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").canonicalize()?;
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e");
        std::fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
        let overlay = tempfile::tempdir_in(&target)?;
        // kustomize accepts no absolute paths, and `target` may be a link to another folder.
        let manifests_from_overlay = relative(&overlay.path().canonicalize()?, &manifests);
        let kustomization = format!(
            "resources: [{0}/base]\ncomponents: [{0}/components/network-policy]\n",
            manifests_from_overlay.display()
        );
        std::fs::write(overlay.path().join("kustomization.yaml"), kustomization)?;
        let accepted = dry_run(overlay.path())?;

        let policies = std::fs::read_to_string(manifests.join("components/network-policy/policies.yaml"))?;
        let policies = documents(&policies)?;
        ensure!(!policies.is_empty(), "the component has no policies");
        for policy in policies {
            let wanted = format!("networkpolicy.networking.k8s.io/{} ", policy.name_any());
            ensure!(accepted.lines().any(|line| line.starts_with(&wanted)), "{wanted}is not accepted:\n{accepted}");
        }
        Ok(())
    })
    .await;
}

/// The path `to` as seen from the folder `from`, both absolute and without links.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let up = from.components().skip(1).map(|_| Component::ParentDir);
    up.chain(to.components().skip(1)).collect()
}

/// Applies a folder as a server-side dry run.
fn dry_run(folder: &Path) -> Result<String> {
    let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k"];
    let output = kubectl::command().args(arguments).arg(folder).output().context("run kubectl")?;
    ensure!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
