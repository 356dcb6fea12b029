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
use serde::{Serialize, Serializer};

use crate::{
    Options, Outcome,
    finding::{self, Cause, Finding},
    objects::{Objects, condition_reason},
    output::{self, Page},
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
    #[serde(serialize_with = "as_steps")]
    steps: Vec<Finding>,
    /// What is wrong beside the steps, and costs no identity.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "finding::as_causes")]
    warnings: Vec<Finding>,
}

/// What warnings are about.
const BESIDE: &str = "beside it";

/// Everything up to the first step that fails. Pure.
fn report(about: &About) -> Report {
    let name = match &about.pod {
        Some(pod) => pod.metadata.name.clone().unwrap_or_default(),
        None => about.asked.clone(),
    };
    let pod = format!("{}/{name}", about.namespace);
    let Some(found) = &about.pod else {
        return Report { pod, steps: vec![missing(about)], warnings: Vec::new() };
    };
    let mut steps = Vec::new();
    let entitlement = entitlement::steps(about, found);
    let all = [injection::steps(about, found), entitlement.steps, delivery::steps(about, found)];
    for step in all.into_iter().flatten() {
        let has_failed = step.has_failed();
        steps.push(step);
        if has_failed {
            break;
        }
    }
    let mut warnings = entitlement.warnings;
    warnings.extend(delivery::warnings(found));
    warnings.extend(warning_events(about, found));
    // Of a pod that has not come so far, the step says what is wrong.
    if !steps.iter().any(Finding::has_failed) {
        warnings.extend(undelivered(about, &name));
    }
    Report { pod, steps, warnings }
}

/// Why there is no pod: what makes it may have been refused.
fn missing(about: &About) -> Finding {
    let (kind, name) = about.asked.split_once('/').unwrap_or(("pod", &about.asked));
    let namespace = &about.namespace;
    match about.maker {
        Some(Maker::Missing) => {
            let text = format!("there is no {} in namespace {namespace}", about.asked);
            return Finding::failed("pod", Reason::PodNotFound, text)
                .with_mend(format!("kubectl get {kind} --namespace {namespace}"));
        }
        Some(Maker::Wants(Some(0))) => {
            let text = format!("{} has no pods, since its spec.replicas is 0", about.asked);
            let mend = format!("kubectl scale --namespace {namespace} {} --replicas 1", about.asked);
            return Finding::failed("pod", Reason::PodNotFound, text).with_mend(mend);
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
        let step =
            Finding::failed("pod", reason, format!("there is no pod, since its creation was refused: {message}"));
        return step.with_mend(mends::refusal(reason, namespace, message));
    }
    let message = if kind == "pod" {
        format!("there is no pod {name} in namespace {}", about.namespace)
    } else {
        format!("there is no pod of {} in namespace {}", about.asked, about.namespace)
    };
    Finding::failed("pod", Reason::PodNotFound, message)
        .with_mend(format!("kubectl get pods --namespace {}", about.namespace))
}

/// Warnings of the issuer about the pod.
fn warning_events(about: &About, pod: &Pod) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
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
            && !found.iter().any(|known| known.is(reason))
        {
            found.push(Finding::warning(BESIDE, reason, event.message.clone().unwrap_or_default()));
        }
    }
    found
}

/// What the operator's last count says of the pod: credentials that have not arrived, or a clock that is wrong.
fn undelivered(about: &About, pod: &str) -> Vec<Finding> {
    let of_namespace =
        about.objects.identities.iter().filter(|object| object.metadata.namespace.as_ref() == Some(&about.namespace));
    let entries = of_namespace.filter_map(|object| object.status.as_ref()).flat_map(|status| &status.undelivered);
    let mut found: Vec<Finding> = Vec::new();
    for one in entries.filter(|one| one.pod == pod) {
        let Some(reason) = condition_reason(&one.reason).filter(|reason| !found.iter().any(|known| known.is(*reason)))
        else {
            continue;
        };
        let message =
            format!("{}, by the last of the counts that are made every 30 s", Reason::without_code(&one.message));
        let mend = format!("kubectl countersign identity --namespace {} {pod}", about.namespace);
        found.push(Finding::warning(BESIDE, reason, message).with_mend(mend));
    }
    found
}

impl Report {
    fn is_well(&self) -> bool {
        !self.steps.iter().any(Finding::has_failed)
    }
}

impl output::Report for Report {
    fn write(&self, page: &mut Page) {
        page.heading(format_args!("pod {}", self.pod));
        self.steps.iter().chain(&self.warnings).for_each(|finding| finding.write(page));
    }
}

/// Steps for programs: what was found, where one passed, and else the cause.
fn as_steps<S: Serializer>(steps: &[Finding], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Step<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        found: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<Cause<'a>>,
    }
    serializer.collect_seq(steps.iter().map(|step| Step {
        name: &step.about,
        found: (!step.has_failed()).then_some(&step.message),
        cause: step.has_failed().then(|| Cause::from(step)),
    }))
}
