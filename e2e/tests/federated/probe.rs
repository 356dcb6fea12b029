//! `kubectl countersign probe` from a pod of one cluster to a pod of another.

#![allow(clippy::indexing_slicing, reason = "a JSON value that is missing is null")]

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World, cli,
    federation::federated,
    fixture::PodSpec,
    kubeconfig::{self, HERE, THERE},
    wait::{DEFAULT_TIMEOUT, until},
};
use serde_json::Value;

use crate::consents::{authorities, introduce};

/// R6, R16: both sides name whom they authenticated; once a consent is missing, the side that refuses says so, and what it says to look
/// at is in its own cluster.
#[tokio::test]
async fn a_handshake_across_clusters_is_made_and_the_side_that_refuses_it_is_named() {
    federated("cli-probe", async |here, there| {
        authorities(here, there, &["caller", "callee"]).await?;
        introduce(here, there, &[&here.namespace], "").await?;
        introduce(there, here, &[&there.namespace], "").await?;
        for (world, name) in [(here, "caller"), (there, "callee")] {
            world.cluster.apply(&PodSpec::hold(name).pod(&world.namespace)).await?;
        }
        for (world, name) in [(here, "caller"), (there, "callee")] {
            world.ready(name).await?;
            world.identity_condition(name, "Federated", "True", "Complete").await?;
        }
        let probe = Probe::new(here, there)?;
        let report = probe.until_outcomes(["authenticated", "authenticated"]).await?;
        ensure!(report["a"]["peer"] == there.id("callee").as_str(), "{report:#}");
        ensure!(report["b"]["peer"] == here.id("caller").as_str(), "{report:#}");

        // The side that is called no longer trusts the caller's trust domain.
        introduce(there, here, &["elsewhere"], "").await?;
        let report = probe.until_outcomes(["refusedByPeer", "refusedPeer"]).await?;
        let why = report["b"]["message"].as_str().unwrap_or_default();
        ensure!(why.contains(&here.trust_domain), "{report:#}");
        let text = cli::run(&probe.arguments())?;
        ensure!(text.code == 1 && text.stdout.contains("CS5090 HandshakeRefused"), "{text:?}");
        let mend = format!("kubectl countersign why -n {} callee --context {THERE}", there.namespace);
        ensure!(text.stdout.contains(&mend), "{text:?}");

        // And the other way round.
        introduce(there, here, &[&there.namespace], "").await?;
        introduce(here, there, &["elsewhere"], "").await?;
        let report = probe.until_outcomes(["refusedPeer", "refusedByPeer"]).await?;
        let why = report["a"]["message"].as_str().unwrap_or_default();
        ensure!(why.contains(&there.trust_domain), "{report:#}");
        Ok(())
    })
    .await;
}

/// A handshake between two pods that is tried again and again.
struct Probe {
    kubeconfig: tempfile::NamedTempFile,
    caller: String,
    callee: String,
}

impl Probe {
    fn new(here: &World, there: &World) -> Result<Self> {
        Ok(Self {
            kubeconfig: kubeconfig::of_both()?,
            caller: format!("{}/caller", here.namespace),
            callee: format!("{}/callee", there.namespace),
        })
    }

    fn arguments(&self) -> [&str; 9] {
        let file = self.kubeconfig.path().to_str().unwrap_or_default();
        ["probe", &self.caller, &self.callee, "--kubeconfig", file, "--context", HERE, "--context-b", THERE]
    }

    /// Waits until both sides end like this: a change of consents reaches agents a moment later.
    async fn until_outcomes(&self, wanted: [&str; 2]) -> Result<Value> {
        until(&format!("the handshake ends in {wanted:?}"), DEFAULT_TIMEOUT, async || {
            let (code, report) = cli::json(&self.arguments())?;
            let outcomes = [&report["a"]["outcome"], &report["b"]["outcome"]];
            ensure!(outcomes == wanted, "{report:#}");
            ensure!((code == 0) == (wanted == ["authenticated"; 2]), "exit code {code}: {report:#}");
            Ok(Some(report))
        })
        .await
        .context("probe --context-b")
    }
}
