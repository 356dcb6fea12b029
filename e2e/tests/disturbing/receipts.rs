//! What agents say of credentials that do not arrive, and of clocks that are wrong.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result, ensure};
use countersign_contract::files::IDENTITY;
use countersign_e2e::{
    World, cli,
    faults::faulty,
    pods::AGENT,
    replicas::running,
    wait::{DEFAULT_TIMEOUT, until},
};
use serde_json::Value;

/// Waits until the status counts as many pods that hold their credentials, and names problems with these reasons.
async fn reported(world: &World, name: &str, held: i64, reasons: &[&str]) -> Result<()> {
    let identities = world.cluster.workload_identities(&world.namespace).await?;
    // The operator asks its replicas twice a minute.
    until(&format!("{held} pods hold what was issued, and {reasons:?} are reported"), DEFAULT_TIMEOUT, async || {
        let status = identities.get(name).await?.data["status"].clone();
        let found = status["undelivered"].as_array().cloned().unwrap_or_default();
        let found: Vec<&str> = found.iter().filter_map(|one| one["reason"].as_str()).collect();
        Ok((status["pods"]["held"] == held && found == reasons).then_some(()))
    })
    .await
}

fn held(world: &World, pod: &str) -> Result<Value> {
    let (_, report) = cli::json(&["identity", pod, "--namespace", &world.namespace])?;
    Ok(report["identities"][0]["held"]["answer"].clone())
}

/// R28: a pod whose files cannot be written, on a node whose clock is wrong, is named with both until neither is so; its socket has what
/// was issued meanwhile.
#[tokio::test]
async fn files_that_stay_old_and_a_clock_that_is_wrong_are_reported_until_they_are_mended() {
    faulty("receipts", async |world, faults| {
        world.cluster.apply(&world.trust_domain_yaml("")).await?;
        world.new_pod("holder").await?;
        reported(world, "holder", 1, &[]).await?;
        ensure!(held(world, "holder")? == "yes");

        let pod = world.pods().get("holder").await?;
        let agent = running(&pod, AGENT).context("the agent does not run")?;
        let before = world.credential("holder").await?.serial;
        let sealed = faults.begin(&["seal", "--container", &agent, "--directory", IDENTITY]).await?;
        let ahead = faults.begin(&["clock", "--container", &agent, "--ahead", "90"]).await?;
        let renew = ["renew", "holder", "--namespace", &world.namespace];
        let ended = cli::run(&renew)?;
        ensure!(ended.code == 0, "the issuer signed, and the socket has it: {ended:?}");
        reported(world, "holder", 0, &["AgentClockDiffers", "FilesDiffer"]).await?;
        ensure!(held(world, "holder")? == "no");
        ensure!(world.credential("holder").await?.serial == before, "the files are as they were");
        let names_both = |report: &Value| {
            let text = report.to_string();
            text.contains("FilesDiffer") && text.contains("AgentClockDiffers")
        };
        let (code, report) = cli::json(&["why", "holder", "--namespace", &world.namespace])?;
        ensure!(code == 0 && names_both(&report), "it has its identity: {report:#}");
        // A pod that is younger than a minute is left alone.
        until(
            "the check names both",
            DEFAULT_TIMEOUT,
            async || Ok(names_both(&cli::json(&["check"])?.1).then_some(())),
        )
        .await?;

        sealed.end().await?;
        let ended = cli::run(&renew)?;
        ensure!(ended.code == 0, "{ended:?}");
        // Its agent sees that the clock was set back, and begins anew.
        ahead.end().await?;
        reported(world, "holder", 1, &[]).await?;
        ensure!(held(world, "holder")? == "yes");
        ensure!(world.credential("holder").await?.serial != before, "the files are new");
        Ok(())
    })
    .await;
}
