//! Writes a request and follows it.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use countersign_crds::TrustDomain;
use countersign_reasons::Reason;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};

use super::{
    plan::{Goal, Plan, Request, plan},
    progress::{Step, is_complete, steps},
    report::Report,
};
use crate::{
    access::{is_conflict, not_written},
    cluster::Cluster,
    finding::Finding,
    output, times,
    trust_domains::find,
};

/// How long to follow a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Following {
    /// Nothing is written.
    DryRun,
    /// Until it is written.
    Requested,
    /// Until the last pod has acknowledged it.
    Complete { timeout: Duration },
}

/// The field manager of what is written.
const MANAGER: &str = "kubectl-countersign";
/// How often a request is planned anew because the object was changed meanwhile: the operator writes its status all the time.
const ATTEMPTS: usize = 10;
/// Between two looks at the status.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(
    cluster: &Cluster,
    name: &str,
    request: &Request,
    following: Following,
    is_confirmed: bool,
) -> Result<Report> {
    let object = find(cluster, name).await?;
    let planned = checked(&object, request)?;
    let mut report = Report {
        action: request.verb(),
        name: object.name_any(),
        trust_domain: object.trust_domain_name().to_owned(),
        effects: planned.effects.clone(),
        written: false,
        steps: Vec::new(),
        findings: Vec::new(),
        are_effects_shown: false,
    };
    if following == Following::DryRun {
        return Ok(report);
    }
    if planned.patch.is_some() {
        output::progress(|page| report.write_effects(page));
        report.are_effects_shown = true;
        if !is_confirmed {
            confirm(&report)?;
        }
    }
    let domains: Api<TrustDomain> = Api::all(cluster.client.clone());
    let (object, goal) = write(&domains, object, planned, request, &mut report).await?;
    if let Following::Complete { timeout } = following {
        follow(&domains, object, &goal, timeout, &mut report).await?;
    }
    Ok(report)
}

fn checked(object: &TrustDomain, request: &Request) -> Result<Plan> {
    plan(object, request, Timestamp::now()).map_err(|refusal| {
        anyhow::anyhow!("{} ({} {}); nothing was changed", refusal.message, refusal.reason.code(), refusal.reason)
    })
}

/// Writes it on the version that it was planned on, planned anew for as long as others are faster.
async fn write(
    domains: &Api<TrustDomain>,
    mut object: TrustDomain,
    mut planned: Plan,
    request: &Request,
    report: &mut Report,
) -> Result<(TrustDomain, Goal)> {
    let name = object.name_any();
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    for _ in 0..ATTEMPTS {
        let Some(patch) = &planned.patch else {
            let message = "the TrustDomain asks for this already, so nothing was written";
            report.findings.push(Finding::warning("request", Reason::AlreadyRequested, message));
            return Ok((object, planned.goal));
        };
        let patched = domains.patch(&name, &parameters, &Patch::Merge(patch)).await;
        match patched.with_context(|| format!("changing TrustDomain {name}")) {
            Ok(patched) => {
                report.written = true;
                return Ok((patched, planned.goal));
            }
            Err(error) if is_conflict(&error) => {
                object = domains.get(&name).await.with_context(|| format!("reading TrustDomain {name}"))?;
                planned = checked(&object, request)?;
            }
            Err(error) => return Err(not_written(error, "patch", "trustdomains.countersign.dev")),
        }
    }
    bail!("TrustDomain {name} was changed by others {ATTEMPTS} times meanwhile; nothing was written, try again")
}

async fn follow(
    domains: &Api<TrustDomain>,
    mut object: TrustDomain,
    goal: &Goal,
    timeout: Duration,
    report: &mut Report,
) -> Result<()> {
    let (name, generation, begin) = (object.name_any(), object.metadata.generation.unwrap_or_default(), Instant::now());
    let mut shown: Vec<Step> = Vec::new();
    loop {
        let now = steps(&object, goal, generation);
        for step in now.iter().filter(|step| !shown.contains(step)) {
            show(step, begin.elapsed());
        }
        report.steps.clone_from(&now);
        shown = now;
        if is_complete(&shown) {
            return Ok(());
        }
        if begin.elapsed() >= timeout {
            report.time_out(&times::span(SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX)));
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        // The API server may be away for a moment; the request is written.
        match domains.get(&name).await {
            Ok(read) => object = read,
            Err(error @ kube::Error::Api(_)) => {
                return Err(error).context("the request is written; reading its status");
            }
            Err(error) => output::progress(|page| page.line(format_args!("the API server does not answer: {error}"))),
        }
    }
}

fn show(step: &Step, elapsed: Duration) {
    output::progress(|page| page.step(elapsed.as_secs(), step.name, step.done, &step.message));
}

/// Asks on a terminal; elsewhere there is nobody to ask.
fn confirm(report: &Report) -> Result<()> {
    if !io::stdin().is_terminal() {
        bail!(
            "nobody can confirm it without a terminal: add --yes to {} authorities of {}",
            report.action,
            report.trust_domain
        );
    }
    output::progress(|page| page.line(format_args!("Type yes to {} in {}:", report.action, report.trust_domain)));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    if answer.trim() != "yes" {
        bail!("nothing was changed");
    }
    Ok(())
}
