//! Why a pod has its identities, or has none: the steps from the pod to its credentials, in order.

mod delivery;
mod entitlement;
mod injection;
mod mends;
mod observe;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::Result;
use countersign_reasons::Reason;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde::Serialize;

use crate::{
    Options, Outcome,
    cause::Cause,
    objects::{Objects, condition_reason},
    output::{self, Mark, Page},
};

/// Say why a pod has its identities, or has none: the first step that fails, and what mends it. Exit code 1 if one fails.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pod, or what makes pods, such as `deployment/orders`: then the newest of its pods.
    pod: String,
}

pub(crate) async fn run(Args { pod }: Args, options: &Options) -> Result<Outcome> {
    let cluster = options.cluster().await?;
    let report = report(&observe::about(&cluster, &pod).await?);
    options.print(&report)?;
    Ok(if report.is_well() { Outcome::Well } else { Outcome::Problem })
}

/// What is known of one pod.
#[derive(Debug, Default)]
struct About {
    namespace: String,
    /// As it was asked for.
    asked: String,
    pod: Option<Pod>,
    /// What makes the pods that are asked about, if it exists; `None` where a pod is asked about.
    maker: Option<Maker>,
    /// Labels of what makes the pod.
    maker_labels: BTreeMap<String, String>,
    /// Without pods.
    objects: Objects,
    /// Of the namespace, the oldest first.
    events: Vec<Event>,
    /// The last line of the agent's log.
    agent_log: Option<String>,
}

/// What makes pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    /// There is none of this name.
    Missing,
    /// It wants so many pods, where it says.
    Wants(Option<i32>),
}

/// The steps as far as they went.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    pod: String,
    steps: Vec<Step>,
    /// What is wrong beside the steps, and costs no identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Cause>,
}

/// One step.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Step {
    /// What it is about.
    name: &'static str,
    /// What was found, where it passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
}

impl Step {
    fn passed(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, found: Some(found.into()), cause: None }
    }

    fn failed(name: &'static str, cause: Cause) -> Self {
        Self { name, found: None, cause: Some(cause) }
    }
}

/// Everything up to the first step that fails. Pure.
fn report(about: &About) -> Report {
    let name = match &about.pod {
        Some(pod) => pod.metadata.name.clone().unwrap_or_default(),
        None => about.asked.clone(),
    };
    let pod = format!("{}/{name}", about.namespace);
    let Some(found) = &about.pod else {
        return Report { pod, steps: vec![Step::failed("pod", missing(about))], warnings: Vec::new() };
    };
    let mut steps = Vec::new();
    let entitlement = entitlement::steps(about, found);
    let all = [injection::steps(about, found), entitlement.steps, delivery::steps(about, found)];
    for step in all.into_iter().flatten() {
        let has_failed = step.cause.is_some();
        steps.push(step);
        if has_failed {
            break;
        }
    }
    let mut warnings = entitlement.warnings;
    warnings.extend(delivery::warnings(found));
    warnings.extend(warning_events(about, found));
    Report { pod, steps, warnings }
}

/// Why there is no pod: what makes it may have been refused.
fn missing(about: &About) -> Cause {
    let (kind, name) = about.asked.split_once('/').unwrap_or(("pod", &about.asked));
    let namespace = &about.namespace;
    match about.maker {
        Some(Maker::Missing) => {
            let text = format!("there is no {} in namespace {namespace}", about.asked);
            return Cause::new(Reason::PodNotFound, text).mend(format!("kubectl get {kind} --namespace {namespace}"));
        }
        Some(Maker::Wants(Some(0))) => {
            let text = format!("{} has no pods, since its spec.replicas is 0", about.asked);
            let mend = format!("kubectl scale --namespace {namespace} {} --replicas 1", about.asked);
            return Cause::new(Reason::PodNotFound, text).mend(mend);
        }
        Some(Maker::Wants(_)) | None => {}
    }
    // The ReplicaSet of a Deployment has its name and a hash.
    let is_of = |of: &str| {
        let hash = of.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        of == name || about.maker.is_some() && hash.is_some_and(|hash| !hash.contains('-'))
    };
    let refused = about.events.iter().rev().find(|event| {
        event.reason.as_deref() == Some("FailedCreate")
            && is_of(event.involved_object.name.as_deref().unwrap_or_default())
    });
    if let Some(message) = refused.and_then(|event| event.message.as_deref()) {
        let reason = Reason::at_end(message).unwrap_or(Reason::PodNotCreated);
        let cause = Cause::new(reason, format!("there is no pod, since its creation was refused: {message}"));
        return cause.mend(mends::refusal(reason, namespace, message));
    }
    let message = if kind == "pod" {
        format!("there is no pod {name} in namespace {}", about.namespace)
    } else {
        format!("there is no pod of {} in namespace {}", about.asked, about.namespace)
    };
    Cause::new(Reason::PodNotFound, message).mend(format!("kubectl get pods --namespace {}", about.namespace))
}

/// Warnings of the issuer about the pod.
fn warning_events(about: &About, pod: &Pod) -> Vec<Cause> {
    let mut found: Vec<Cause> = Vec::new();
    for event in about.events.iter().rev() {
        let is_of_pod = event.involved_object.uid.is_some() && event.involved_object.uid == pod.metadata.uid;
        let reason = event.reason.as_deref().and_then(condition_reason);
        let suspicious = [
            Reason::SessionDisplaced,
            Reason::StreamsFromSeveralAddresses,
            Reason::TooManyIdentities,
            Reason::AgentOutdated,
            Reason::BundleNotAcknowledged,
        ];
        if let Some(reason) = reason.filter(|reason| is_of_pod && suspicious.contains(reason))
            && !found.iter().any(|known| known.reason == reason)
        {
            found.push(Cause::new(reason, event.message.clone().unwrap_or_default()));
        }
    }
    found
}

impl Report {
    fn is_well(&self) -> bool {
        self.steps.iter().all(|step| step.cause.is_none())
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        page.heading(format_args!("pod {}", self.pod));
        for Step { name, found, cause } in &self.steps {
            found.iter().for_each(|found| page.item(Mark::Ok, name, found));
            cause.iter().for_each(|cause| cause.write(page, Mark::Failed, name));
        }
        self.warnings.iter().for_each(|warning| warning.write(page, Mark::Warning, "beside it"));
    }
}
