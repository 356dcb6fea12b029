//! Pods without an identity: those that request injection and have no agent, those that are entitled to none, and those whose agent
//! has none yet; and agents that are outdated.

use std::{collections::BTreeMap, time::Duration};

use countersign_contract::{metadata::annotation, pod::AGENT};
use countersign_crds::{TrustDomain, WorkloadIdentity, condition};
use countersign_index::{Entitlement, Index};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt as _;

use super::{
    category::{Category, some},
    delivery,
};
use crate::{
    finding::Finding,
    installation::agent_is_ready,
    objects::{Objects, asks_for_injection, condition_of, sessions, uid},
    output::{Mark, count},
    reading::{Gap, Reading, full_name},
};

/// How long a new pod may take.
pub(super) const START: Duration = Duration::from_secs(60);

/// What was read.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The value of `{cluster}`.
    pub(crate) name_in_paths: String,
    pub(crate) domains: Reading<Vec<TrustDomain>>,
    pub(crate) identities: Reading<Vec<WorkloadIdentity>>,
    pub(crate) namespaces: Reading<Vec<Namespace>>,
    pub(crate) pods: Reading<Vec<Pod>>,
}

impl Seen {
    pub(crate) async fn observe(cluster: &crate::Cluster) -> Self {
        let (name_in_paths, domains, identities, namespaces, pods) = futures::join!(
            cluster.name_in_paths(),
            cluster.read_all::<TrustDomain>(),
            cluster.read_all::<WorkloadIdentity>(),
            cluster.read_all::<Namespace>(),
            cluster.read_all::<Pod>(),
        );
        Self { name_in_paths, domains, identities, namespaces, pods }
    }
}

pub(super) fn category(seen: &Seen, now: Timestamp) -> Category {
    let name = "pods and identities";
    let gaps = [
        ("identities", seen.identities.gap()),
        ("domains", seen.domains.gap()),
        ("namespaces", seen.namespaces.gap()),
        ("pods", seen.pods.gap()),
    ];
    let mut checks: Vec<Finding> = gaps.into_iter().filter_map(|(name, gap)| Some(Finding::gap(name, gap?))).collect();
    let is_complete = checks.is_empty();
    if seen.identities.found().is_some() {
        checks.extend(identities(seen.identities.items()));
    }
    // Without one of the four each pod would look as if it lacked something.
    if is_complete {
        checks.extend(pods(seen, now));
        checks.extend(delivery::checks(seen, now));
    }
    Category::new(name, checks)
}

fn identities(identities: &[WorkloadIdentity]) -> Vec<Finding> {
    let mut not_ready: BTreeMap<String, Vec<&WorkloadIdentity>> = BTreeMap::new();
    let mut problems: BTreeMap<(&str, String), Vec<&WorkloadIdentity>> = BTreeMap::new();
    for identity in identities {
        let conditions = identity.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        match condition_of(conditions, condition::READY) {
            Some(ready) if ready.status == "True" => {}
            Some(ready) => not_ready.entry(ready.reason.clone()).or_default().push(identity),
            None => not_ready.entry(Reason::StatusUnknown.name().to_owned()).or_default().push(identity),
        }
        let of_interest = conditions.iter().filter(|found| match found.type_.as_str() {
            condition::CREDENTIALS_REFRESHABLE | condition::FEDERATED | condition::WIT_AVAILABLE => {
                found.status == "False"
            }
            condition::CONFLICTING => found.status == "True",
            _ => false,
        });
        for found in of_interest {
            problems.entry((found.type_.as_str(), found.reason.clone())).or_default().push(identity);
        }
    }
    let mut checks = Vec::new();
    if not_ready.is_empty() {
        let message = match identities.len() {
            0 => "there are no WorkloadIdentities".to_owned(),
            1 => "the only WorkloadIdentity is ready".to_owned(),
            number => format!("all {number} WorkloadIdentities are ready"),
        };
        checks.push(Finding::ok("identities", message));
    }
    for (reason, which) in not_ready {
        let message = format!("not ready: {}", some(which.iter().map(|one| full_name(*one))));
        checks.push(
            Finding::ok("identities", message).marked(Mark::Warning).because(&reason).with_mends(describe(&which)),
        );
    }
    for ((type_, reason), which) in problems {
        let message = format!("condition {type_}: {}", some(which.iter().map(|one| full_name(*one))));
        checks.push(
            Finding::ok("identities", message).marked(Mark::Warning).because(&reason).with_mends(describe(&which)),
        );
    }
    checks
}

fn describe(which: &[&WorkloadIdentity]) -> String {
    let first = which.first().map(|one| (one.namespace().unwrap_or_default(), one.name_any()));
    let (namespace, name) = first.unwrap_or_default();
    format!("kubectl describe workloadidentity -n {namespace} {name}")
}

fn pods(seen: &Seen, now: Timestamp) -> Vec<Finding> {
    let objects = Objects {
        domains: seen.domains.items().to_vec(),
        identities: seen.identities.items().to_vec(),
        namespaces: seen.namespaces.items().to_vec(),
        pods: seen.pods.items().to_vec(),
        cluster: seen.name_in_paths.clone(),
    };
    let index = objects.index();
    let (mut well, mut lacking) = (0, BTreeMap::<String, Vec<&Pod>>::new());
    for pod in objects.pods.iter().filter(|pod| is_alive(pod)) {
        match state(&objects, &index, pod, now) {
            State::Served => well += 1,
            State::Lacks(reason) => lacking.entry(reason).or_default().push(pod),
            State::NotConcerned => {}
        }
    }
    let mut checks = Vec::new();
    if lacking.is_empty() {
        let message = match well {
            0 => "no pod requests an identity".to_owned(),
            1 => "the only pod that requests an identity has one".to_owned(),
            number => format!("all {number} pods that request an identity have one"),
        };
        checks.push(Finding::ok("pods", message));
    }
    for (reason, which) in lacking {
        let what = if reason == Reason::NotInjected.name() {
            "without an agent, although their label or that of their namespace requests injection"
        } else if reason == Reason::PodsNotServed.name() {
            "entitled to an identity, and their agent has none"
        } else {
            "with an agent, and no identity to get"
        };
        let pods = count(which.len(), "pod");
        let message = format!("{pods} {what}: {}", some(which.iter().map(|pod| full_name(*pod))));
        let first = which.first().map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any()));
        let (namespace, pod) = first.unwrap_or_default();
        checks.push(
            Finding::ok("pods", message)
                .marked(Mark::Warning)
                .because(&reason)
                .with_mends(format!("kubectl countersign why -n {namespace} {pod}")),
        );
    }
    checks
}

/// How a pod stands to its identity.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Served,
    Lacks(String),
    /// It requests none, or is too new to say.
    NotConcerned,
}

pub(crate) fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed") && pod.metadata.deletion_timestamp.is_none()
}

fn state(objects: &Objects, index: &Index, pod: &Pod, now: Timestamp) -> State {
    let is_new = pod.metadata.creation_timestamp.as_ref().is_none_or(|time| time.0 + START > now);
    if !pod.annotations().contains_key(annotation::INJECTED) {
        let asks = asks_for_injection(objects.injection(pod).as_deref());
        return if asks { State::Lacks(Reason::NotInjected.name().to_owned()) } else { State::NotConcerned };
    }
    for session in sessions(pod) {
        if let Entitlement::None(absence) = index.entitlement(&uid(pod), &session) {
            return State::Lacks(absence.reason.name().to_owned());
        }
    }
    match (agent_is_ready(pod), is_new) {
        (true, _) => State::Served,
        (false, true) => State::NotConcerned,
        (false, false) => State::Lacks(Reason::PodsNotServed.name().to_owned()),
    }
}

/// Agents that are outdated by the operator's count, and those of another image than the one that is injected now.
pub(super) fn agents(seen: &Seen, injected: &Reading<String>, outdated_by_replicas: f64) -> Vec<Finding> {
    let name = "agents";
    let identities = seen.identities.items();
    let by_status: i64 = identities.iter().filter_map(|one| one.status.as_ref()?.outdated_agents).sum();
    if by_status > 0 || outdated_by_replicas > 0.0 {
        let which =
            identities.iter().filter(|one| one.status.as_ref().and_then(|status| status.outdated_agents) > Some(0));
        // By status it is known whose they are; the replicas count each open session at once.
        let message = if by_status > 0 {
            format!("{by_status} agents are older than the operator supports, of {}", some(which.map(full_name)))
        } else {
            format!(
                "the operator's replicas count {outdated_by_replicas} sessions of agents that are older than it supports"
            )
        };
        return vec![
            Finding::warning(name, Reason::AgentOutdated, message)
                .with_mends("kubectl rollout restart deployment -n NAMESPACE NAME\nfor each workload"),
        ];
    }
    let injected = match injected {
        Reading::Found(injected) => injected,
        other => return vec![Finding::gap(name, other.gap().unwrap_or(Gap::Absent))],
    };
    if let Some(gap) = seen.pods.gap() {
        return vec![Finding::gap(name, gap)];
    }
    let alive = seen.pods.items().iter().filter(|pod| is_alive(pod));
    let images: Vec<(&Pod, String)> = alive.filter_map(|pod| Some((pod, agent_image(pod)?))).collect();
    let other: Vec<&Pod> =
        images.iter().filter(|(_, image)| !same_image(image, injected)).map(|(pod, _)| *pod).collect();
    if other.is_empty() {
        return vec![Finding::ok(name, format!("{} of the image {injected}", count(images.len(), "agent")))];
    }
    let pods = count(other.len(), "pod");
    let message = format!(
        "{pods} with an agent of another image than {injected}: {}",
        some(other.iter().map(|pod| full_name(*pod)))
    );
    vec![
        Finding::warning(name, Reason::AgentImageDiffers, message)
            .with_mends("kubectl rollout restart deployment -n NAMESPACE NAME\nfor each workload"),
    ]
}

fn agent_image(pod: &Pod) -> Option<String> {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    containers.into_iter().find(|container| container.name == AGENT)?.image.clone()
}

/// A mutator may have added a digest.
fn same_image(image: &str, injected: &str) -> bool {
    image == injected || image.split('@').next() == Some(injected)
}

#[cfg(test)]
mod tests;
