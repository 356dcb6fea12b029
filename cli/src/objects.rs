//! The objects that decide about identities, as they are in a cluster or in files.

use std::collections::BTreeMap;

use countersign_contract::{
    metadata::{annotation, label},
    pod::AGENT,
};
use countersign_crds::{TrustDomain, WorkloadIdentity, WorkloadIdentityStatus, condition::STATS_COMPLETE};
use countersign_index::{Index, PodRecord};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::ResourceExt as _;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) domains: Vec<TrustDomain>,
    pub(crate) identities: Vec<WorkloadIdentity>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pods: Vec<Pod>,
    /// The value of `{cluster}` in paths, empty without one.
    pub(crate) cluster: String,
}

impl Objects {
    /// What the operator would make of them.
    pub(crate) fn index(&self) -> Index {
        self.index_with(&self.pods)
    }

    /// As [`Self::index`], with other pods.
    pub(crate) fn index_with<'a>(&self, pods: impl IntoIterator<Item = &'a Pod>) -> Index {
        let mut index = Index::default();
        index.tell_time(Timestamp::now());
        for namespace in &self.namespaces {
            index.apply_namespace(&namespace.name_any(), namespace.metadata.labels.clone().unwrap_or_default());
        }
        for domain in &self.domains {
            index.apply_domain(countersign_policy::trust_domain(domain, &self.cluster));
        }
        for identity in &self.identities {
            index.apply_identity(countersign_policy::workload_identity(identity));
        }
        for pod in pods {
            index.apply_pod(record(pod));
        }
        index
    }

    /// The value of the label by which a pod is injected: its own, or that of its namespace.
    pub(crate) fn injection(&self, pod: &Pod) -> Option<String> {
        let own = pod.labels().get(label::INJECT);
        own.or_else(|| self.namespace_label(&pod.namespace()?)).cloned()
    }

    /// The label of a namespace by which its pods are injected.
    pub(crate) fn namespace_label(&self, namespace: &str) -> Option<&String> {
        self.namespaces.iter().find(|one| one.name_any() == namespace)?.labels().get(label::INJECT)
    }
}

/// Whether a label asks for injection.
pub(crate) fn asks_for_injection(value: Option<&str>) -> bool {
    matches!(value, Some("auto" | "sidecar"))
}

/// The pod as the index has it, as the operator reads it from its watch.
fn record(pod: &Pod) -> PodRecord {
    let spec = pod.spec.clone().unwrap_or_default();
    let containers: Vec<Container> =
        spec.containers.into_iter().chain(spec.init_containers.unwrap_or_default()).collect();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let mut record = PodRecord {
        ended: matches!(phase, "Succeeded" | "Failed"),
        deleted_at: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
        injected: pod.annotations().contains_key(annotation::INJECTED),
        images: containers.iter().map(|container| container.image.clone().unwrap_or_default()).collect(),
        ..PodRecord::default()
    };
    record.facts.namespace = pod.namespace().unwrap_or_default();
    record.facts.name = pod.name_any();
    record.facts.uid = uid(pod);
    record.facts.service_account = service_account(pod);
    record.facts.labels =
        pod.labels().iter().map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>();
    record.facts.containers = containers.into_iter().map(|container| container.name).collect();
    record
}

/// That of the object, or a name that no other pod of the files has.
pub(crate) fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_else(|| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()))
}

/// The containers that have sessions of their own: with the annotation, all but the agent.
pub(crate) fn sessions(pod: &Pod) -> Vec<String> {
    if pod.annotations().get(annotation::PER_CONTAINER).is_none_or(|value| value != "true") {
        return vec![String::new()];
    }
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.filter(|container| container.name != AGENT).map(|container| container.name.clone()).collect()
}

/// The service account as which a pod runs; a file may leave out the default, which the API server adds.
pub(crate) fn service_account(pod: &Pod) -> String {
    let named = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned())
}

/// What makes the pod, as `kubectl rollout restart` takes it: a ReplicaSet is named for its Deployment.
pub(crate) fn owner(pod: &Pod) -> Option<(String, String)> {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    if owner.kind != "ReplicaSet" {
        return Some((owner.kind.to_lowercase(), owner.name.clone()));
    }
    let hash = pod.labels().get("pod-template-hash")?;
    Some(("deployment".to_owned(), owner.name.strip_suffix(&format!("-{hash}"))?.to_owned()))
}

/// The condition of this type.
pub(crate) fn condition_of<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|one| one.type_ == type_)
}

/// Whether a replica of the operator could not report its streams, so that what is counted is as it was before.
pub(crate) fn has_kept_counts(status: &WorkloadIdentityStatus) -> bool {
    condition_of(&status.conditions, STATS_COMPLETE).is_some_and(|one| one.status == "False")
}

/// The reason of a condition or event, if it is one of ours.
pub(crate) fn condition_reason(name: &str) -> Option<Reason> {
    name.parse().ok()
}

/// How many characters must be changed, added or removed to make one text of the other (Levenshtein).
pub(crate) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (position, character) in one.chars().enumerate() {
        let mut diagonal = position;
        let mut left = position + 1;
        let mut next = vec![left];
        for (above, against) in row.iter().skip(1).zip(&other) {
            left = (diagonal + usize::from(character != *against)).min(*above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn texts_are_as_far_apart_as_characters_differ() {
        for (one, other, expected) in [("", "abc", 3), ("orders", "order", 1), ("twcie", "twice", 2), ("a", "a", 0)] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }
}
