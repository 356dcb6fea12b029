//! Decides from labels and annotations whether a pod is injected and with which options.

use countersign_reasons::Reason;
use std::collections::BTreeSet;

use countersign_contract::{
    metadata::{
        annotation::{BUNDLE_DOCUMENTS, CONTAINERS, HOLD, PER_CONTAINER},
        label::INJECT,
    },
    pod::{AGENT, LONGEST_SESSION_NAME},
};
use serde_json::Value;

use super::{
    pod_fields::{annotation, label, list, name, text},
    refusal::Refusal,
};

/// The webhook entry that matched the pod. Each entry has its own URL, because an admission request does not contain the
/// labels of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The pod has the label.
    PodLabel,
    /// The namespace has the label, with value `auto` or `sidecar`.
    NamespaceLabel,
    /// The namespace has the label, with a value that this release does not support.
    UnsupportedNamespaceLabel,
}

/// Why a pod is not injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Its label is `false`.
    OptedOut,
    /// Neither the pod nor its namespace requests injection.
    NotAsked,
    /// It is the mirror of a static pod: changing it has no effect.
    MirrorPod,
    /// A kubelet reads it from a file or URL.
    StaticPod,
    /// It runs on Windows.
    Windows,
}

impl Skip {
    /// The reason as one word.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::OptedOut => Reason::OptedOut,
            Self::NotAsked => Reason::NotAsked,
            Self::MirrorPod => Reason::MirrorPod,
            Self::StaticPod => Reason::StaticPod,
            Self::Windows => Reason::Windows,
        }
    }
}

/// Whether to inject a pod, and how.
#[derive(Debug)]
pub(super) enum Decision {
    Skip(Skip),
    Inject(InjectionRequest),
}

/// The injection options of a pod.
#[derive(Clone, Debug)]
pub(super) struct InjectionRequest {
    /// Each container has its own session.
    pub(super) per_container: bool,
    /// Application containers start only once the agent has their identity.
    pub(super) hold: bool,
    /// The agent writes bundle documents too.
    pub(super) bundle_documents: bool,
    /// The containers that get an identity.
    pub(super) containers: Vec<ContainerRef>,
}

/// The place of a container in the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerRef {
    /// `initContainers` or `containers`.
    pub(super) list: &'static str,
    pub(super) index: usize,
    pub(super) name: String,
}

impl ContainerRef {
    /// Its JSON pointer.
    pub(super) fn pointer(&self) -> String {
        format!("/spec/{}/{}", self.list, self.index)
    }

    /// Its raw JSON.
    pub(super) fn of<'a>(&self, pod: &'a Value) -> &'a Value {
        pod.pointer(&self.pointer()).unwrap_or(&Value::Null)
    }
}

/// Decides about `pod`.
pub(super) fn decide(pod: &Value, trigger: Trigger) -> Result<Decision, Refusal> {
    if let Some(reason) = skip(pod) {
        return Ok(Decision::Skip(reason));
    }
    match (label(pod, INJECT), trigger) {
        (Some("auto" | "sidecar"), _) | (None, Trigger::NamespaceLabel) => {}
        (Some("false"), _) => return Ok(Decision::Skip(Skip::OptedOut)),
        (Some(mode @ ("node" | "native")), _) => return Err(Refusal::ModeNotOffered { mode: mode.to_owned() }),
        (Some(value), _) => return Err(Refusal::UnknownMode { value: value.to_owned() }),
        (None, Trigger::PodLabel) => return Ok(Decision::Skip(Skip::NotAsked)),
        (None, Trigger::UnsupportedNamespaceLabel) => return Err(Refusal::NamespaceMode),
    }
    let per_container = switch(pod, PER_CONTAINER)?.unwrap_or(false);
    let hold = switch(pod, HOLD)?.unwrap_or(true);
    let bundle_documents = switch(pod, BUNDLE_DOCUMENTS)?.unwrap_or(false);
    let containers = containers(pod)?;
    if let Some(long) = containers.iter().find(|container| per_container && container.name.len() > LONGEST_SESSION_NAME)
    {
        return Err(Refusal::ContainerNameTooLong { name: long.name.clone(), longest: LONGEST_SESSION_NAME });
    }
    Ok(Decision::Inject(InjectionRequest { per_container, hold, bundle_documents, containers }))
}

fn skip(pod: &Value) -> Option<Skip> {
    if annotation(pod, "kubernetes.io/config.mirror").is_some() {
        return Some(Skip::MirrorPod);
    }
    if matches!(annotation(pod, "kubernetes.io/config.source"), Some("file" | "http")) {
        return Some(Skip::StaticPod);
    }
    let by_selector = pod.pointer("/spec/nodeSelector").and_then(|labels| labels.get("kubernetes.io/os")?.as_str());
    (text(pod, "/spec/os/name").or(by_selector) == Some("windows")).then_some(Skip::Windows)
}

fn switch(pod: &Value, key: &'static str) -> Result<Option<bool>, Refusal> {
    match annotation(pod, key) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(value) => Err(Refusal::Annotation {
            annotation: key,
            value: value.to_owned(),
            expected: "write \"true\" or \"false\"",
        }),
    }
}

fn containers(pod: &Value) -> Result<Vec<ContainerRef>, Refusal> {
    let all: Vec<ContainerRef> = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|key| {
            let containers = list(pod, if key == "containers" { "/spec/containers" } else { "/spec/initContainers" });
            containers.iter().enumerate().map(move |(index, container)| ContainerRef {
                list: key,
                index,
                name: name(container).to_owned(),
            })
        })
        .filter(|container| container.name != AGENT)
        .collect();
    if all.is_empty() {
        return Err(Refusal::NoContainers);
    }
    let Some(names) = annotation(pod, CONTAINERS) else { return Ok(all) };
    // Duplicates are removed, so that each step below is bounded by the number of containers.
    let names: BTreeSet<&str> = names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(Refusal::Annotation {
            annotation: CONTAINERS,
            value: String::new(),
            expected: "name containers, separated by commas, or remove it",
        });
    }
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|container| container.name != **name)) {
        let have = all.into_iter().map(|container| container.name).collect();
        return Err(Refusal::NoSuchContainer { name: (*unknown).to_owned(), have });
    }
    Ok(all.into_iter().filter(|container| names.contains(container.name.as_str())).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(labels: Value, annotations: Value) -> Value {
        json!({
            "metadata": { "labels": labels, "annotations": annotations },
            "spec": { "initContainers": [{ "name": "setup" }], "containers": [{ "name": "app" }, { "name": "side" }] },
        })
    }

    fn names(decision: Result<Decision, Refusal>) -> Vec<String> {
        match decision.unwrap() {
            Decision::Inject(request) => request.containers.into_iter().map(|container| container.name).collect(),
            Decision::Skip(reason) => panic!("skipped: {reason:?}"),
        }
    }

    fn skipped(pod: &Value, trigger: Trigger) -> Skip {
        match decide(pod, trigger).unwrap() {
            Decision::Skip(reason) => reason,
            Decision::Inject(_) => panic!("injected"),
        }
    }

    #[test]
    fn the_pods_label_wins_over_the_namespaces() {
        let labelled = |value: &str| pod(json!({ INJECT: value }), json!({}));
        assert_eq!(skipped(&labelled("false"), Trigger::NamespaceLabel), Skip::OptedOut);
        assert_eq!(names(decide(&labelled("sidecar"), Trigger::UnsupportedNamespaceLabel)).len(), 3);
        assert_eq!(names(decide(&labelled("auto"), Trigger::PodLabel)).len(), 3);
    }

    #[test]
    fn nobody_is_injected_who_did_not_ask() {
        assert_eq!(skipped(&pod(json!({}), json!({})), Trigger::PodLabel), Skip::NotAsked);
        assert_eq!(names(decide(&pod(json!({}), json!({})), Trigger::NamespaceLabel)), ["setup", "app", "side"]);
    }

    #[test]
    fn modes_that_are_not_offered_are_refused() {
        for mode in ["node", "native"] {
            let refusal = decide(&pod(json!({ INJECT: mode }), json!({})), Trigger::PodLabel).unwrap_err();
            assert_eq!(refusal, Refusal::ModeNotOffered { mode: mode.into() });
        }
        let refusal = decide(&pod(json!({ INJECT: "yes" }), json!({})), Trigger::PodLabel).unwrap_err();
        assert_eq!(refusal, Refusal::UnknownMode { value: "yes".into() });
        assert_eq!(
            decide(&pod(json!({}), json!({})), Trigger::UnsupportedNamespaceLabel).unwrap_err(),
            Refusal::NamespaceMode
        );
    }

    #[test]
    fn pods_that_cannot_be_injected_are_skipped_with_a_reason() {
        let mirror = pod(json!({}), json!({ "kubernetes.io/config.mirror": "x" }));
        assert_eq!(skipped(&mirror, Trigger::NamespaceLabel), Skip::MirrorPod);
        let from_file = pod(json!({}), json!({ "kubernetes.io/config.source": "file" }));
        assert_eq!(skipped(&from_file, Trigger::NamespaceLabel), Skip::StaticPod);
        let mut windows = pod(json!({}), json!({}));
        windows["spec"]["os"] = json!({ "name": "windows" });
        assert_eq!(skipped(&windows, Trigger::NamespaceLabel), Skip::Windows);
        let mut windows = pod(json!({}), json!({}));
        windows["spec"]["nodeSelector"] = json!({ "kubernetes.io/os": "windows" });
        assert_eq!(skipped(&windows, Trigger::NamespaceLabel), Skip::Windows);
    }

    #[test]
    fn annotations_choose_containers() {
        let chosen = pod(json!({}), json!({ CONTAINERS: "side, setup" }));
        assert_eq!(names(decide(&chosen, Trigger::NamespaceLabel)), ["setup", "side"]);
        let unknown = pod(json!({}), json!({ CONTAINERS: "app,nope" }));
        let refusal = decide(&unknown, Trigger::NamespaceLabel).unwrap_err();
        assert!(matches!(refusal, Refusal::NoSuchContainer { name, .. } if name == "nope"));
        let empty = pod(json!({}), json!({ CONTAINERS: " ," }));
        assert_eq!(decide(&empty, Trigger::NamespaceLabel).unwrap_err().reason().name(), "InvalidAnnotation");
    }

    #[test]
    fn annotations_that_mean_nothing_are_refused() {
        for key in [BUNDLE_DOCUMENTS, HOLD, PER_CONTAINER] {
            let refusal = decide(&pod(json!({}), json!({ key: "no" })), Trigger::NamespaceLabel).unwrap_err();
            assert_eq!(refusal.reason().name(), "InvalidAnnotation", "{key}");
        }
    }

    #[test]
    fn a_session_needs_a_name_that_fits_a_volume() {
        let mut long = pod(json!({}), json!({ PER_CONTAINER: "true" }));
        long["spec"]["containers"][0]["name"] = json!("a".repeat(LONGEST_SESSION_NAME + 1));
        assert_eq!(decide(&long, Trigger::NamespaceLabel).unwrap_err().reason().name(), "ContainerNameTooLong");
        long["spec"]["containers"][0]["name"] = json!("a".repeat(LONGEST_SESSION_NAME));
        assert_eq!(names(decide(&long, Trigger::NamespaceLabel)).len(), 3);
    }

    #[test]
    fn a_pod_without_containers_is_refused() {
        assert_eq!(decide(&json!({ "spec": {} }), Trigger::NamespaceLabel).unwrap_err(), Refusal::NoContainers);
    }
}
