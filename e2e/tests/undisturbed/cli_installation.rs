//! `kubectl countersign` about an installation: `check`, `status`, `sysdump`, and handshakes from pod to pod. Tests beside these make
//! trust domains that are not well, so that a check of the whole cluster may fail; what is of the installation must not.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result, ensure};
use countersign_contract::objects::{AUTHORITIES_NAMESPACE, journal};
use countersign_e2e::{
    World,
    cli::{self, Running},
    fixture::PodSpec,
    scenario,
    wait::{DEFAULT_TIMEOUT, gone, until},
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, api::ListParams};
use serde_json::Value;

/// Categories of the installation itself.
const INSTALLATION: [&str; 6] =
    ["cluster", "custom resource definitions", "rights", "components", "webhook", "versions"];

fn checks<'a>(report: &'a Value, category: &str) -> impl Iterator<Item = &'a Value> {
    let categories = report["categories"].as_array().into_iter().flatten();
    let of_it = categories.filter(move |found| found["name"] == category);
    of_it.flat_map(|found| found["checks"].as_array().into_iter().flatten())
}

#[tokio::test]
async fn an_installation_that_is_well_passes_every_check_of_it() {
    scenario("cli-check", async |world| {
        let (_, report) = cli::json(&["check", "--namespace", &world.namespace])?;
        for category in INSTALLATION {
            let found: Vec<&Value> = checks(&report, category).collect();
            ensure!(!found.is_empty(), "nothing was checked of {category}: {report:#}");
            let failed: Vec<_> = found.iter().filter(|check| check["mark"] == "failed").collect();
            ensure!(failed.is_empty(), "{category}: {failed:#?}");
        }
        // They were tried, and not merely looked at.
        for name in ["injection", "validation"] {
            let check = checks(&report, "webhook").find(|check| check["name"] == name).context("no trial")?;
            ensure!(check["mark"] == "ok", "{check:#}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_pod_without_an_identity_is_found_with_its_reason() {
    scenario("cli-found", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("selected", "")).await?;
        world.cluster.apply(&PodSpec::hold("forgotten").pod(&world.namespace)).await?;
        let pod = format!("{}/forgotten", world.namespace);
        until("the check names the pod", DEFAULT_TIMEOUT, async || {
            let (_, report) = cli::json(&["check"])?;
            let reason =
                checks(&report, "pods and identities").find(|check| check["reason"] == "ServiceAccountNotSelected");
            // Up to three pods are named for each reason.
            let named = |check: &Value| {
                check["message"].as_str().is_some_and(|text| text.contains(&pod) || text.contains("more"))
            };
            Ok(reason.filter(|check| named(check)).map(|_| ()))
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn a_probe_gets_an_identity_and_leaves_nothing_behind() {
    scenario("cli-probe", async |world| {
        let prefix = format!("{}-probe", world.namespace);
        let (_, report) = cli::json(&["check", &format!("--probe={prefix}"), "--timeout", "4m"])?;
        let found: Vec<&Value> = checks(&report, "probe").collect();
        // A trust domain of another test may be unwell; then there is no probe.
        if found.iter().all(|check| check["mark"] == "skipped") {
            return Ok(());
        }
        ensure!(found.iter().all(|check| check["mark"] == "ok"), "{found:#?}");
        let namespaces: Api<Namespace> = Api::all(world.cluster.client.clone());
        for namespace in namespaces.list_metadata(&ListParams::default()).await?.items {
            let name = namespace.metadata.name.unwrap_or_default();
            if name.starts_with(&prefix) {
                gone(&namespaces, &name, DEFAULT_TIMEOUT).await?;
            }
        }
        let domains = world.cluster.trust_domains().await?.list_metadata(&ListParams::default()).await?.items;
        ensure!(domains.iter().all(|domain| !domain.metadata.name.as_deref().unwrap_or_default().starts_with(&prefix)));
        let secrets: Api<Secret> = Api::namespaced(world.cluster.client.clone(), AUTHORITIES_NAMESPACE);
        let left = journal::trust_domain_secret(&prefix);
        let secrets = secrets.list_metadata(&ListParams::default()).await?.items;
        ensure!(secrets.iter().all(|secret| !secret.metadata.name.as_deref().unwrap_or_default().starts_with(&left)));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_status_shows_trust_domains_identities_and_who_leads() {
    scenario("cli-status", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.cluster.apply(&world.identity_yaml("orders", "")).await?;
        until("the status shows the trust domain", DEFAULT_TIMEOUT, async || {
            let (code, status) = cli::json(&["status"])?;
            ensure!(code == 0, "it ended with {code}");
            ensure!(status["gaps"] == serde_json::json!([]), "{status:#}");
            ensure!(status["components"][0]["leader"].is_string(), "nobody leads: {status:#}");
            let domains = status["trustDomains"].as_array().into_iter().flatten();
            let own = domains.into_iter().find(|domain| domain["name"] == world.trust_domain.as_str());
            Ok(own.filter(|domain| domain["ready"] == true && domain["nextSwitch"].is_string()).map(|_| ()))
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn the_watched_status_shows_what_changes_until_it_is_interrupted() {
    scenario("cli-watch", async |world| {
        let mut watched = Running::start(&["status", "--watch"])?;
        watched.says("what there is", |line| line.starts_with("workload identities: ")).await?;
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        let shown = format!(" {}: ", world.trust_domain);
        watched.says("the new trust domain", |line| line.contains(&shown)).await?;
        world.cluster.apply(&world.identity_yaml("orders", "")).await?;
        world.cluster.apply(&PodSpec::hold("orders").pod(&world.namespace)).await?;
        let is_counted = |line: &str| line.contains(&shown) && line.contains("acknowledged by 1/1");
        watched.says("that the new pod has the bundle", is_counted).await?;
        let (code, _) = watched.interrupt().await?;
        ensure!(code == 0, "exit code {code}");
        Ok(())
    })
    .await;
}

/// The outcome of both sides of a handshake.
fn outcomes(report: &Value) -> (&str, &str) {
    let outcome = |side: &str| report[side]["outcome"].as_str().unwrap_or_default().to_owned();
    let known = ["authenticated", "refusedPeer", "refusedByPeer", "unreachable", "noIdentity", "notRun", "failed"];
    let of = |side| known.into_iter().find(|known| *known == outcome(side)).unwrap_or("unknown");
    (of("a"), of("b"))
}

fn handshake(a: &str, b: &str) -> Result<(i32, Value)> {
    cli::json(&["probe", a, b, "--timeout", "60s"])
}

async fn ready(world: &World, pod: &str) -> Result<()> {
    world.cluster.apply(&PodSpec::hold(pod).pod(&world.namespace)).await?;
    world.ready(pod).await.map(drop)
}

#[tokio::test]
async fn a_handshake_from_pod_to_pod_names_both_and_a_refusal_names_its_reason() {
    scenario("cli-handshake", async |world| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        for pod in ["cart", "orders"] {
            world.cluster.apply(&world.identity_yaml(pod, "")).await?;
            ready(world, pod).await?;
        }
        let name = |pod: &str| format!("{}/{pod}", world.namespace);
        let (code, report) = handshake(&name("cart"), &name("orders"))?;
        ensure!(code == 0 && outcomes(&report) == ("authenticated", "authenticated"), "{report:#}");
        ensure!(report["a"]["peer"] == world.id("orders").as_str(), "{report:#}");
        ensure!(report["b"]["peer"] == world.id("cart").as_str(), "{report:#}");

        // A pod of another trust domain, whose bundle none of these has.
        let other = World::new("cli-stranger").await?;
        other.create_namespace().await?;
        let refused = async {
            other.cluster.apply(&other.trust_domain_yaml("")).await?;
            other.cluster.apply(&other.identity_yaml("stranger", "")).await?;
            ready(&other, "stranger").await?;
            let (code, report) = handshake(&format!("{}/stranger", other.namespace), &name("orders"))?;
            ensure!(code == 1, "{report:#}");
            // The caller verifies the server first.
            ensure!(outcomes(&report) == ("refusedPeer", "refusedByPeer"), "{report:#}");
            let why = report["a"]["message"].as_str().unwrap_or_default();
            ensure!(why.contains(&world.trust_domain), "{report:#}");
            Ok(())
        }
        .await;
        other.end().await?;
        refused
    })
    .await;
}
