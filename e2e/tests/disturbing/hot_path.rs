//! R24: neither issuing nor admission calls the API server. The audit log shows what operator and webhook requested under
//! load.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a value that is missing fails the test")]

use anyhow::{Context as _, Result, ensure};
use countersign_contract::metadata::annotation;
use countersign_e2e::{
    World,
    apply::documents,
    audit::{Audit, title},
    cluster::SYSTEM,
    faults::{alone, report_counts},
    fixture::PodSpec,
    issuer::{Issuer, csr},
    replicas::{OPERATOR, WEBHOOK},
    wait::{DEFAULT_TIMEOUT, until},
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

/// The number of issues, and of admissions.
const MANY: usize = 400;
/// The number of streams for the issues: one stream may have a burst of a hundred, then it is limited.
const STREAMS: usize = 5;
/// The most requests that may have other reasons: token keys are fetched now and then, and replicas are asked for their streams.
/// It is far less than one request for each issue or admission.
const BACKGROUND: usize = MANY / 10;
/// Marks in the audit log, in order.
const ISSUES_BEGIN: &str = "issues-begin";
const AFTER_ISSUES: &str = "after-issues";
const AFTER_ADMISSIONS: &str = "after-admissions";

#[tokio::test]
async fn neither_issues_nor_admissions_ask_the_api_server_anything() {
    let Some(audit) = Audit::from_env("requests that follow from issues and admissions") else { return };
    alone("hot-path", async |world| {
        world.settled().await?;
        issues(world).await?;
        mark(world, AFTER_ISSUES).await?;
        admissions(world).await?;
        mark(world, AFTER_ADMISSIONS).await?;
        let [issuing, admitting] =
            until("the audit log has it all", DEFAULT_TIMEOUT, async || requests(&audit, world)).await?;
        report_counts(
            "requests to the API server",
            &json!({
                "issues": MANY, "requests_meanwhile": issuing.len(), "admissions": MANY, "requests_during_admissions": admitting.len(),
            }),
        )?;
        for (what, requests) in [("issues", issuing), ("admissions", admitting)] {
            ensure!(requests.len() <= BACKGROUND, "{} requests during {MANY} {what}: {requests:#?}", requests.len());
            let reviews: Vec<_> = requests.iter().filter(|title| title.contains("reviews/")).collect();
            ensure!(reviews.is_empty(), "somebody was asked whether to believe or to allow, during {what}: {reviews:#?}");
        }
        Ok(())
    })
    .await;
}

/// Renewals on open streams, each with a new key.
async fn issues(world: &World) -> Result<()> {
    world.cluster.apply(&world.trust_domain_yaml("")).await?;
    world.cluster.apply(&world.identity_yaml("busy", "")).await?;
    let audience = world.cluster.control_plane().await?.audience;
    let issuer = Issuer::connect(&world.cluster).await?;
    let mut sessions = Vec::new();
    for number in 0..STREAMS {
        let pod = world.never_runs(&format!("busy-{number}"), "busy").await?;
        let token = world.service_account_token("busy", &[&audience], Some(&pod)).await?;
        let session = until("the issuer knows the pod and its identity", DEFAULT_TIMEOUT, async || {
            let mut session = issuer.open(&token).await?;
            Ok((!session.state().await?.identities.is_empty()).then_some(session))
        });
        sessions.push(session.await?);
    }
    // The status of a new identity is written before counting starts.
    let identities = world.cluster.workload_identities(&world.namespace).await?;
    until("the status of busy is written", DEFAULT_TIMEOUT, async || {
        let status = identities.get("busy").await?.data["status"]["pods"]["matched"].clone();
        Ok((status == json!(STREAMS)).then_some(()))
    })
    .await?;
    mark(world, ISSUES_BEGIN).await?;
    for _ in 0..MANY / STREAMS {
        for session in &mut sessions {
            let (request, _) = csr(&[], &[])?;
            let answer = session.certificate(request, "").await?;
            ensure!(answer.refusal.is_none(), "an issue was refused: {:?}", answer.refusal);
        }
    }
    Ok(())
}

/// Pods that are created as dry runs.
async fn admissions(world: &World) -> Result<()> {
    let mut objects = documents(&PodSpec::hold("busy").pod(&world.namespace))?;
    let mut pod: Pod = objects.pop().context("a pod is the last")?.try_parse()?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    for number in 0..MANY {
        pod.metadata.name = Some(format!("admitted-{number}"));
        let made = world.pods().create(&dry, &pod).await?;
        let injected = made.metadata.annotations.is_some_and(|all| all.contains_key(annotation::INJECTED));
        ensure!(injected, "a pod was let through as it was");
    }
    Ok(())
}

/// Requests an object that does not exist, which marks the place in the audit log.
async fn mark(world: &World, name: &str) -> Result<()> {
    let maps: Api<ConfigMap> = world.cluster.api(&world.namespace);
    ensure!(maps.get_opt(name).await?.is_none(), "there is a ConfigMap {name}");
    Ok(())
}

/// The requests of operator and webhook during the issues and during the admissions, except watches, which are restarted on
/// their own, and those about objects of earlier tests, which are still being deleted; `None` if the log does not have the last mark yet.
fn requests(audit: &Audit, world: &World) -> Result<Option<[Vec<String>; 2]>> {
    let marks = [ISSUES_BEGIN, AFTER_ISSUES, AFTER_ADMISSIONS];
    let users = [OPERATOR, WEBHOOK].map(|name| format!("system:serviceaccount:{SYSTEM}:{name}"));
    let (mut passed, mut seen, mut asked) = (0, [false; 2], [Vec::new(), Vec::new()]);
    audit.requests(|line| {
        let is_ours = line.contains(&world.namespace) && line.contains("\"configmaps\"");
        let is_mark = |name: &&str| is_ours && line.contains(&format!("\"name\":\"{name}\""));
        passed += usize::from(marks.get(passed).is_some_and(is_mark));
        for (user, seen) in users.iter().zip(&mut seen) {
            if !line.contains(user.as_str()) {
                continue;
            }
            let request: Value = serde_json::from_str(line).context("a line of the audit log")?;
            if request["user"]["username"] != user.as_str() {
                continue;
            }
            *seen = true;
            let namespace = request["objectRef"]["namespace"].as_str().unwrap_or_default();
            if namespace.starts_with("e2e-") && namespace != world.namespace {
                continue;
            }
            let during = passed.checked_sub(1).and_then(|span| asked.get_mut(span));
            if let Some(asked) = during.filter(|_| request["verb"] != "watch" && request["stage"] == "ResponseComplete")
            {
                asked.push(title(line));
            }
        }
        Ok(())
    })?;
    // Guards against an empty result because of a wrong user name.
    ensure!(seen == [true; 2], "the audit log says nothing at all of {users:?}: {seen:?}");
    Ok((passed == marks.len()).then_some(asked))
}
