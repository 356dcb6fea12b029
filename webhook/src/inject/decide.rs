//! Whether a pod is injected, and how it asks for it: labels and annotations, read once and typed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    INJECT_LABEL, Refusal,
    fields::{annotation, label, list, name, text},
    shape::{AGENT, LONGEST_SESSION_NAME},
};

const PER_CONTAINER: &str = "countersign.dev/per-container";
const CONTAINERS: &str = "countersign.dev/containers";
const HOLD: &str = "countersign.dev/hold";

/// Which of the webhook's entries brought the pod here; the admission request does not hold the namespace's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The pod's own label.
    ByPod,
    /// The namespace's label, which says `auto` or `sidecar`.
    ByNamespace,
    /// The namespace's label, which says something else.
    ByNamespaceOtherwise,
}

/// Why a pod is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Its label says `false`.
    OptedOut,
    /// Nobody asked.
    NotAsked,
    /// It is the API server's picture of a static pod: changing it changes nothing.
    MirrorPod,
    /// It is read by a kubelet from a file or URL.
    StaticPod,
    /// It runs on Windows.
    Windows,
}

impl Skip {
    /// The reason as one word.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::OptedOut => "OptedOut",
            Self::NotAsked => "NotAsked",
            Self::MirrorPod => "MirrorPod",
            Self::StaticPod => "StaticPod",
            Self::Windows => "Windows",
        }
    }
}

/// Whether to inject, and how.
#[derive(Debug)]
pub(super) enum Decision {
    Skip(Skip),
    Inject(Wanted),
}

/// What the pod asks for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Each container has its own session.
    pub(super) per_container: bool,
    /// The application waits for its identity.
    pub(super) hold: bool,
    /// The containers that get an identity.
    pub(super) containers: Vec<Container>,
}

/// Where a container is in the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    /// `initContainers` or `containers`.
    pub(super) list: &'static str,
    pub(super) index: usize,
    pub(super) name: String,
}

impl Container {
    /// Its JSON pointer.
    pub(super) fn pointer(&self) -> String {
        format!("/spec/{}/{}", self.list, self.index)
    }

    /// Its raw JSON.
    pub(super) fn of<'a>(&self, pod: &'a Value) -> &'a Value {
        pod.pointer(&self.pointer()).unwrap_or(&Value::Null)
    }
}

/// Reads what the pod asks for.
pub(super) fn decide(pod: &Value, asked: Asked) -> Result<Decision, Refusal> {
    if let Some(reason) = skip(pod) {
        return Ok(Decision::Skip(reason));
    }
    match (label(pod, INJECT_LABEL), asked) {
        (Some("auto" | "sidecar"), _) | (None, Asked::ByNamespace) => {}
        (Some("false"), _) => return Ok(Decision::Skip(Skip::OptedOut)),
        (Some(mode @ ("node" | "native")), _) => return Err(Refusal::ModeNotOffered { mode: mode.to_owned() }),
        (Some(value), _) => return Err(Refusal::UnknownMode { value: value.to_owned() }),
        (None, Asked::ByPod) => return Ok(Decision::Skip(Skip::NotAsked)),
        (None, Asked::ByNamespaceOtherwise) => return Err(Refusal::NamespaceMode),
    }
    let per_container = switch(pod, PER_CONTAINER)?.unwrap_or(false);
    let hold = switch(pod, HOLD)?.unwrap_or(true);
    let containers = containers(pod)?;
    if let Some(long) = containers.iter().find(|container| per_container && container.name.len() > LONGEST_SESSION_NAME)
    {
        return Err(Refusal::ContainerNameTooLong { name: long.name.clone(), longest: LONGEST_SESSION_NAME });
    }
    Ok(Decision::Inject(Wanted { per_container, hold, containers }))
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

fn containers(pod: &Value) -> Result<Vec<Container>, Refusal> {
    let all: Vec<Container> = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|key| {
            let containers = list(pod, if key == "containers" { "/spec/containers" } else { "/spec/initContainers" });
            containers.iter().enumerate().map(move |(index, container)| Container {
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
    // Of those named twice one is kept: then each step below is bounded by the number of containers there are.
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
            Decision::Inject(wanted) => wanted.containers.into_iter().map(|container| container.name).collect(),
            Decision::Skip(reason) => panic!("skipped: {reason:?}"),
        }
    }

    fn skipped(pod: &Value, asked: Asked) -> Skip {
        match decide(pod, asked).unwrap() {
            Decision::Skip(reason) => reason,
            Decision::Inject(_) => panic!("injected"),
        }
    }

    #[test]
    fn the_pods_label_wins_over_the_namespaces() {
        let labelled = |value: &str| pod(json!({ INJECT_LABEL: value }), json!({}));
        assert_eq!(skipped(&labelled("false"), Asked::ByNamespace), Skip::OptedOut);
        assert_eq!(names(decide(&labelled("sidecar"), Asked::ByNamespaceOtherwise)).len(), 3);
        assert_eq!(names(decide(&labelled("auto"), Asked::ByPod)).len(), 3);
    }

    #[test]
    fn nobody_is_injected_who_did_not_ask() {
        assert_eq!(skipped(&pod(json!({}), json!({})), Asked::ByPod), Skip::NotAsked);
        assert_eq!(names(decide(&pod(json!({}), json!({})), Asked::ByNamespace)), ["setup", "app", "side"]);
    }

    #[test]
    fn modes_that_are_not_offered_are_refused() {
        for mode in ["node", "native"] {
            let refusal = decide(&pod(json!({ INJECT_LABEL: mode }), json!({})), Asked::ByPod).unwrap_err();
            assert_eq!(refusal, Refusal::ModeNotOffered { mode: mode.into() });
        }
        let refusal = decide(&pod(json!({ INJECT_LABEL: "yes" }), json!({})), Asked::ByPod).unwrap_err();
        assert_eq!(refusal, Refusal::UnknownMode { value: "yes".into() });
        assert_eq!(
            decide(&pod(json!({}), json!({})), Asked::ByNamespaceOtherwise).unwrap_err(),
            Refusal::NamespaceMode
        );
    }

    #[test]
    fn pods_that_cannot_be_injected_are_skipped_with_a_reason() {
        let mirror = pod(json!({}), json!({ "kubernetes.io/config.mirror": "x" }));
        assert_eq!(skipped(&mirror, Asked::ByNamespace), Skip::MirrorPod);
        let from_file = pod(json!({}), json!({ "kubernetes.io/config.source": "file" }));
        assert_eq!(skipped(&from_file, Asked::ByNamespace), Skip::StaticPod);
        let mut windows = pod(json!({}), json!({}));
        windows["spec"]["os"] = json!({ "name": "windows" });
        assert_eq!(skipped(&windows, Asked::ByNamespace), Skip::Windows);
        let mut windows = pod(json!({}), json!({}));
        windows["spec"]["nodeSelector"] = json!({ "kubernetes.io/os": "windows" });
        assert_eq!(skipped(&windows, Asked::ByNamespace), Skip::Windows);
    }

    #[test]
    fn annotations_choose_containers() {
        let chosen = pod(json!({}), json!({ CONTAINERS: "side, setup" }));
        assert_eq!(names(decide(&chosen, Asked::ByNamespace)), ["setup", "side"]);
        let unknown = pod(json!({}), json!({ CONTAINERS: "app,nope" }));
        let refusal = decide(&unknown, Asked::ByNamespace).unwrap_err();
        assert!(matches!(refusal, Refusal::NoSuchContainer { name, .. } if name == "nope"));
        let empty = pod(json!({}), json!({ CONTAINERS: " ," }));
        assert_eq!(decide(&empty, Asked::ByNamespace).unwrap_err().reason(), "InvalidAnnotation");
    }

    #[test]
    fn annotations_that_mean_nothing_are_refused() {
        for key in [HOLD, PER_CONTAINER] {
            let refusal = decide(&pod(json!({}), json!({ key: "no" })), Asked::ByNamespace).unwrap_err();
            assert_eq!(refusal.reason(), "InvalidAnnotation", "{key}");
        }
    }

    #[test]
    fn a_session_needs_a_name_that_fits_a_volume() {
        let mut long = pod(json!({}), json!({ PER_CONTAINER: "true" }));
        long["spec"]["containers"][0]["name"] = json!("a".repeat(LONGEST_SESSION_NAME + 1));
        assert_eq!(decide(&long, Asked::ByNamespace).unwrap_err().reason(), "ContainerNameTooLong");
        long["spec"]["containers"][0]["name"] = json!("a".repeat(LONGEST_SESSION_NAME));
        assert_eq!(names(decide(&long, Asked::ByNamespace)).len(), 3);
    }

    #[test]
    fn a_pod_without_containers_is_refused() {
        assert_eq!(decide(&json!({ "spec": {} }), Asked::ByNamespace).unwrap_err(), Refusal::NoContainers);
    }
}
