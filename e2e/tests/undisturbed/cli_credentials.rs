//! Commands of `kubectl countersign` about credentials and authorities: what they say is what the cluster has.

#![allow(clippy::indexing_slicing, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result, ensure};
use countersign_e2e::{
    World, cli,
    fixture::{AUDIENCE, PodSpec},
    scenario,
    wait::{DEFAULT_TIMEOUT, until},
};
use serde_json::Value;

/// A trust domain whose workloads get changes by push, and a pod that holds an identity of it.
async fn with_holder(world: &World) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("bundleRefreshHint: 1s")).await?;
    let more = format!("jwt: {{audiences: [{AUDIENCE}]}}");
    world.cluster.apply(&world.identity_yaml("holder", &more)).await?;
    world.cluster.apply(&PodSpec::hold("holder").pod(&world.namespace)).await?;
    world.ready("holder").await.map(drop)
}

/// Of `findings` the mark of one.
fn mark<'a>(report: &'a Value, about: &str) -> Option<&'a str> {
    let findings = report["findings"].as_array()?;
    findings.iter().find(|one| one["about"] == about)?["mark"].as_str()
}

/// R28: what a pod holds is acceptable by the cluster's bundle and by the one that was exported, and by no other; its key is not shown.
#[tokio::test]
async fn what_a_pod_holds_is_verified_by_the_bundle_that_is_exported() {
    scenario("cli-verify", async |world| {
        with_holder(world).await?;
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let (svid, token, bundle) = (path("svid.pem"), path("token"), path("bundle.json"));
        let pem = world.credential("holder").await?.pem;
        std::fs::write(&svid, &pem)?;
        std::fs::write(&token, world.jwt_file("holder", AUDIENCE).await?)?;
        let exported = cli::run(&["bundle", "export", &world.trust_domain])?;
        ensure!(exported.code == 0, "{exported:?}");
        std::fs::write(&bundle, &exported.stdout)?;

        let named = format!("{}={bundle}", world.trust_domain);
        for file in [&svid, &token] {
            for by in [&["--bundle", named.as_str()][..], &["--cluster"]] {
                let (code, report) = cli::json(&[&["verify", file.as_str()], by].concat())?;
                ensure!(code == 0 && mark(&report, "trust") == Some("ok"), "{by:?}: {report:#}");
                ensure!(report.to_string().contains(&world.id("holder")), "{report:#}");
            }
        }
        let (code, report) = cli::json(&["verify", &svid])?;
        ensure!(code == 0 && mark(&report, "private key") == Some("warning"), "{report:#}");
        let key = String::from_utf8(pem)?.lines().nth(1).context("no key")?.to_owned();
        ensure!(!report.to_string().contains(&key), "the key is shown");
        let (code, report) = cli::json(&["verify", &token, "--bundle", &named, "--audience", "another"])?;
        ensure!(code == 1 && mark(&report, "audience") == Some("failed"), "{report:#}");
        let (code, _) = cli::json(&["bundle", "show", &world.trust_domain])?;
        ensure!(code == 0);
        Ok(())
    })
    .await;
}

/// R28: what is entitled, issued and held agrees, and after the grant is gone the difference is shown.
#[tokio::test]
async fn what_a_pod_is_entitled_to_and_what_it_holds_are_compared() {
    scenario("cli-identity", async |world| {
        with_holder(world).await?;
        let identity = ["identity", "holder", "--namespace", &world.namespace, "--diff"];
        // The operator counts streams twice a minute.
        until("every answer is yes", DEFAULT_TIMEOUT, async || {
            let (_, report) = cli::json(&identity[..4])?;
            let answers =
                ["entitled", "issued", "held"].map(|column| report["identities"][0][column]["answer"].clone());
            Ok(answers.iter().all(|answer| answer == "yes").then_some(()))
        })
        .await?;
        let ended = cli::run(&identity)?;
        ensure!(ended.code == 0, "{ended:?}");
        world
            .cluster
            .apply(
                &world
                    .trust_domain_yaml("bundleRefreshHint: 1s")
                    .replace("/ns/{namespace}/**", "/other/{namespace}/**"),
            )
            .await?;
        let ended = cli::run(&identity)?;
        ensure!(ended.code == 1 && ended.stdout.contains("NotGranted"), "{ended:?}");
        Ok(())
    })
    .await;
}

/// R53: the command returns once the last pod has acknowledged the bundle, and what it says is what the status has.
#[tokio::test]
async fn authorities_are_rotated_tainted_and_revoked_from_the_command_line() {
    scenario("cli-rotate", async |world| {
        with_holder(world).await?;
        let then = world.authorities().await?;
        let complete = |report: &Value| {
            report["written"] == true
                && report["steps"]
                    .as_array()
                    .is_some_and(|steps| steps.len() > 2 && steps.iter().all(|one| one["done"] == true))
        };
        let (code, report) = cli::json(&["rotate", &world.trust_domain, "--timeout", "4m"])?;
        ensure!(code == 0 && complete(&report), "{report:#}");
        let now = world.authorities().await?;
        ensure!(now.ids("active").is_disjoint(&then.all()), "{then:?}\n{now:?}");

        // A switch renews nothing: what the old authority signed stays good until it ends.
        let (code, report) = cli::json(&["renew", "holder", "--namespace", &world.namespace])?;
        ensure!(code == 0, "{report:#}");
        let before = world.credential("holder").await?;
        let tainted = now.active("x509").context("no active authority")?;
        let (code, report) = cli::json(&["taint", &world.trust_domain, &tainted, "--timeout", "4m"])?;
        ensure!(code == 0 && complete(&report), "{report:#}");
        ensure!(world.credential("holder").await?.authority != before.authority, "the pod has renewed");

        let revoked = world.authorities().await?.active("jwt").context("no active authority")?;
        // There is no terminal, so nobody can confirm it.
        let ended = cli::run(&["revoke", &world.trust_domain, &revoked])?;
        ensure!(ended.code == 2 && ended.stderr.contains("--yes"), "{ended:?}");
        let ended = cli::run(&["revoke", &world.trust_domain, "unknown", "--yes"])?;
        ensure!(ended.code == 2 && ended.stderr.contains("UnknownAuthority"), "{ended:?}");
        ensure!(world.authorities().await?.all().contains(&revoked), "nothing was changed");
        let (code, report) = cli::json(&["revoke", &world.trust_domain, &revoked, "--yes", "--timeout", "4m"])?;
        ensure!(code == 0 && complete(&report), "{report:#}");
        ensure!(!world.authorities().await?.all().contains(&revoked), "it has left the bundle");
        let (code, report) = cli::json(&["revoke", &world.trust_domain, &tainted, "--yes"])?;
        ensure!(code == 0 && report["written"] == false, "it has left already: {report:#}");
        let spec = world.trust_domain_status().await?;
        ensure!(
            spec["removed"].as_array().is_some_and(|removed| removed.len() == 2),
            "both stay in the spec: {spec:#}"
        );
        Ok(())
    })
    .await;
}

/// The workload keeps what it has until the new credentials are there, and the command returns when they are.
#[tokio::test]
async fn the_credentials_of_one_pod_are_renewed_from_the_command_line() {
    scenario("cli-renew", async |world| {
        with_holder(world).await?;
        for _ in 0..2 {
            let before = world.credential("holder").await?;
            let token = world.jwt_file("holder", AUDIENCE).await?;
            let (code, report) = cli::json(&["renew", "holder", "--namespace", &world.namespace])?;
            ensure!(code == 0 && report["sessions"][0]["renewed"] == true, "{report:#}");
            until("certificate, key and token are new", DEFAULT_TIMEOUT, async || {
                let now = world.credential("holder").await?;
                let is_new = now.serial != before.serial && now.public_key != before.public_key;
                Ok((is_new && world.jwt_file("holder", AUDIENCE).await? != token).then_some(()))
            })
            .await?;
        }
        Ok(())
    })
    .await;
}

/// R28, R48: of the three consents the one that is missing is named.
#[tokio::test]
async fn a_consent_that_is_missing_is_named_from_the_command_line() {
    scenario("cli-federation", async |world| {
        let remote = format!("remote-{}", world.trust_domain);
        let admitting = |namespace: &str| {
            format!(
                "---
apiVersion: countersign.dev/v1alpha1
kind: TrustDomain
metadata: {{name: {remote}}}
spec:
  remote:
    namespaces: {{matchNames: [{namespace}]}}
    bootstrap: {{bundle: '{{\"keys\": [], \"spiffe_sequence\": 1}}'}}
"
            )
        };
        let grant = |names: &str| world.granting_yaml("", &format!("federatesWith: [{names}]"));
        world.cluster.apply(&grant("")).await?;
        world.cluster.apply(&world.identity_yaml("holder", &format!("federatesWith: [{remote}]"))).await?;
        let missing = || -> Result<Option<String>> {
            let (_, report) = cli::json(&["federation", "status", &remote])?;
            let users = &report["remotes"][0]["users"];
            Ok(users[0]["reason"].as_str().map(str::to_owned))
        };
        let (code, report) = cli::json(&["federation", "status", &remote])?;
        ensure!(code == 1 && !report["unknown"][&remote].is_null(), "{report:#}");
        world.cluster.apply(&admitting("elsewhere")).await?;
        ensure!(missing()?.as_deref() == Some("FederationNotGranted"), "{:?}", missing()?);
        world.cluster.apply(&grant(&remote)).await?;
        ensure!(missing()?.as_deref() == Some("NamespaceNotAdmitted"), "{:?}", missing()?);
        world.cluster.apply(&admitting(&world.namespace)).await?;
        until("no consent is missing", DEFAULT_TIMEOUT, async || Ok(missing()?.is_none().then_some(()))).await?;
        countersign_e2e::apply::delete(&world.cluster.trust_domains().await?, &remote).await
    })
    .await;
}
