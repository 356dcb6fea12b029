//! `cargo xtask up --federated`: two clusters whose control planes know nothing of each other. Each publishes its bundle, polls the
//! other's, and has a workload that calls one of the other over mTLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use countersign_contract::objects::{ENDPOINT_NAMESPACE, FEDERATION_NAMESPACE, own_bundle};
use serde_json::json;

use crate::cluster::{self, Cluster};
use crate::demo;
use crate::images::{self, Build, Group};
use crate::kube::Kubectl;
use crate::product;
use crate::progress::{Progress, say};
use crate::sh::{Run as _, wait_for};

/// The names in `manifests/federated/demo`.
const HERE: &str = "demo.countersign.dev";
const THERE: &str = "peer.countersign.dev";
const PEER_NODE: &str = "peer-node.invalid";
const CALLER: &str = "caller-abroad";

/// The port of every node at which the endpoint is.
const ENDPOINT_PORT: u16 = 30443;

const ROLLOUT: Duration = Duration::from_secs(180);

/// The name of the second cluster.
pub(crate) fn peer(name: &str) -> String {
    format!("{name}-peer")
}

/// One of the two clusters.
struct Side {
    cluster: Cluster,
    /// Its trust domain.
    domain: &'static str,
}

/// Starts both, introduces them to each other, and prints who called whom.
pub(crate) fn up(root: &Path, name: &str) -> Result<()> {
    ensure!(!cluster::is_given(root), "KUBECONFIG names one cluster, and this takes two: unset it");
    let archives = images::make(root, &[Group::Product, Group::Demo], Build::Quick)?;
    let sides = [(name.to_owned(), HERE), (peer(name), THERE)];
    let start = |(name, domain): (String, &'static str)| start(root, &name, domain, &archives);
    let [one, other] = sides.map(start);
    let (one, other) = (one?, other?);
    let progress = Progress::start("introduce the two trust domains");
    let both = [(&one, &other), (&other, &one)];
    both.iter().try_for_each(|(side, other)| apply_demo(side, other))?;
    for side in [&one, &other] {
        side.cluster.kubectl.wait_for_rollouts(ENDPOINT_NAMESPACE, ROLLOUT)?;
    }
    both.iter().try_for_each(|(side, other)| introduce(side, other))?;
    for side in [&one, &other] {
        let polled = "--for=jsonpath={.status.remote.origin}=Polled";
        side.cluster.kubectl.cmd(&["wait", polled, "--timeout=120s", "trustdomain", peer_of(side.domain)]).quiet()?;
        side.cluster.kubectl.wait_for_rollouts(demo::NAMESPACE, ROLLOUT)?;
    }
    progress.done("each trusts the other's bundle, as far as its namespaces may");
    say("\nWho talked to whom, over mTLS, across the two clusters:");
    both.iter().try_for_each(|(side, called)| report(side, called))?;
    say("\nTo look further:");
    for side in [&one, &other] {
        say(format!("  KUBECONFIG={} kubectl get trustdomains", side.cluster.kubectl.kubeconfig.display()));
    }
    say("  cargo xtask down            # ends both; nothing is left");
    Ok(())
}

fn start(root: &Path, name: &str, domain: &'static str, archives: &[PathBuf]) -> Result<Side> {
    let cluster = cluster::up(root, name)?;
    let changed = cluster.load(archives)?;
    product::install_from(root, &cluster, "manifests/federated", changed)?;
    // Only now, since pods that are made before the webhook serves get no agent.
    cluster.kubectl.apply(&root.join("manifests/federated/endpoint"))?;
    if changed {
        cluster.kubectl.restart(ENDPOINT_NAMESPACE)?;
    }
    Ok(Side { cluster, domain })
}

/// Tells `side` the trust domain of `other`: its endpoint, and the bundle by which that is verified.
fn introduce(side: &Side, other: &Side) -> Result<()> {
    let kubectl = &side.cluster.kubectl;
    let node = node_address(&other.cluster.kubectl)?;
    let domain = other.domain;
    let remote = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": domain },
        "spec": { "remote": {
            "namespaces": { "matchNames": [demo::NAMESPACE] },
            "endpoint": {
                "url": format!("https://{node}:{ENDPOINT_PORT}/{domain}"),
                "profile": "https_spiffe",
                "spiffeID": format!("spiffe://{domain}/countersign/endpoint"),
            },
            "bootstrap": { "bundle": bundle(&other.cluster.kubectl, domain)? },
        } },
    });
    kubectl.apply_text(&remote.to_string())
}

fn apply_demo(side: &Side, other: &Side) -> Result<()> {
    let kubectl = &side.cluster.kubectl;
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/federated/demo");
    let text = kubectl.cmd(&["kustomize"]).arg(manifests).read()?;
    let text = if side.domain == HERE { text } else { exchanged(&text, HERE, THERE) };
    kubectl.apply_text(&text.replace(PEER_NODE, &node_address(&other.cluster.kubectl)?))
}

/// The text with each of two words in place of the other.
fn exchanged(text: &str, one: &str, other: &str) -> String {
    let parts: Vec<String> = text.split(one).map(|part| part.replace(other, one)).collect();
    parts.join(other)
}

fn peer_of(domain: &str) -> &'static str {
    if domain == HERE { THERE } else { HERE }
}

fn node_address(kubectl: &Kubectl) -> Result<String> {
    let path = "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
    kubectl.cmd(&["get", "nodes", "--output", path]).read()
}

fn bundle(kubectl: &Kubectl, domain: &str) -> Result<String> {
    let (name, path) =
        (own_bundle::config_map(domain), format!("jsonpath={{.data.{}}}", own_bundle::KEY.replace('.', r"\.")));
    wait_for("the bundle is published", ROLLOUT, || {
        let get =
            ["get", "configmap", &name, "--namespace", FEDERATION_NAMESPACE, "--ignore-not-found", "--output", &path];
        Ok(Some(kubectl.cmd(&get).read()?).filter(|document| !document.is_empty()))
    })
}

/// Prints the newest handshake of `side`'s workload with one of `called`.
fn report(side: &Side, called: &Side) -> Result<()> {
    let kubectl = &side.cluster.kubectl;
    let what = format!("a handshake in the log of {CALLER}");
    let handshake = wait_for(&what, Duration::from_secs(60), || demo::newest(kubectl, CALLER))
        .with_context(|| format!("{} has talked to nobody; see `kubectl -n {} logs`", CALLER, demo::NAMESPACE))?;
    let id = |domain: &str, account: &str| format!("spiffe://{domain}/ns/{}/sa/{account}", demo::NAMESPACE);
    let (local, peer) = (id(side.domain, CALLER), id(called.domain, "callee"));
    ensure!(
        handshake.is_between(&local, &peer),
        "the handshake is between others than {local} and {peer}: {handshake:?}"
    );
    say(format!("  {local} ⇄ {peer}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::exchanged;

    #[test]
    fn two_words_are_exchanged_everywhere() {
        assert_eq!(exchanged("a.x b.x a.x", "a.x", "b.x"), "b.x a.x b.x");
        assert_eq!(exchanged("none", "a.x", "b.x"), "none");
    }
}
