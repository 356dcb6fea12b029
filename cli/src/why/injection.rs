//! From the pod to its agent: whether it lives, asks for injection, was injected, and still has its token.

use std::collections::BTreeMap;

use countersign_contract::{
    metadata::{annotation, label},
    pod::{AGENT, TOKEN_VOLUME},
};
use countersign_reasons::Reason;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::About;
use crate::{
    finding::Finding,
    objects::{asks_for_injection, distance, owner},
};

pub(super) fn steps(about: &About, pod: &Pod) -> Vec<Finding> {
    vec![alive(about, pod), injected(about, pod), token(about, pod)]
}

fn alive(about: &About, pod: &Pod) -> Finding {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    match phase {
        "Succeeded" => {
            Finding::failed("pod", Reason::PodEnded, "it is Succeeded: a pod that has ended has no identity")
        }
        "Failed" => {
            let statuses = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
            let ended = statuses.into_iter().find_map(|one| {
                let ended = one.state.as_ref()?.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
                Some((one.name.as_str(), ended.exit_code))
            });
            let why = status.and_then(|status| status.reason.as_deref().or(status.message.as_deref()));
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            let (namespace, name) = (&about.namespace, pod.name_any());
            let (code, mend) = match ended {
                Some((container, code)) => (
                    format!("; container {container} ended with exit code {code}"),
                    format!("kubectl logs --namespace {namespace} {name} --container {container}"),
                ),
                None => (String::new(), format!("kubectl describe pod --namespace {namespace} {name}")),
            };
            let text = format!("it is Failed{why}: a pod that has ended has no identity{code}");
            Finding::failed("pod", Reason::PodEnded, text).with_mend(mend)
        }
        _ if pod.metadata.deletion_timestamp.is_some() => {
            Finding::failed("pod", Reason::PodDeleted, "it is being deleted, and its identity ends with it")
        }
        phase => Finding::ok("pod", phase),
    }
}

fn injected(about: &About, pod: &Pod) -> Finding {
    const STEP: &str = "injection";
    let (namespace, name) = (&about.namespace, pod.name_any());
    let has_agent = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).any(|one| one.name == AGENT);
    if let Some(mode) = pod.annotations().get(annotation::INJECTED) {
        if has_agent {
            return Finding::ok(STEP, format!("injected as {mode}"));
        }
        let message = format!(
            "the pod has the annotation {}, and no container {AGENT}: its template was copied from a pod that was injected",
            annotation::INJECTED
        );
        let mend =
            format!("remove the annotation {} from the template, and create the pod again", annotation::INJECTED);
        return Finding::failed(STEP, Reason::NotInjected, message).with_mend(mend);
    }
    let (own, of_namespace) = (pod.labels().get(label::INJECT), about.objects.namespace_label(namespace));
    let restart = match owner(pod) {
        Some((kind, name)) => format!("kubectl rollout restart --namespace {namespace} {kind}/{name}"),
        None => format!("create the pod {name} again"),
    };
    let value = own.or(of_namespace);
    if asks_for_injection(value.map(String::as_str)) {
        let message = format!(
            "{} asks for injection, and the pod has no agent: it was created before the label was set, or the webhook did not \
             see it",
            if own.is_some() { "the pod's label" } else { "the namespace's label" }
        );
        return Finding::failed(STEP, Reason::NotInjected, message)
            .with_mend(restart)
            .with_mend("kubectl countersign check  # if new pods lack it too");
    }
    let label_namespace = format!("kubectl label namespace {namespace} {}=sidecar --overwrite", label::INJECT);
    match (own, of_namespace) {
        (Some(value), _) if value == "false" => Finding::failed(
            STEP,
            Reason::OptedOut,
            format!("the pod's label {} is false, so it is not injected", label::INJECT),
        )
        .with_mend(format!("set the label {} to sidecar in the pod's template, or remove it there", label::INJECT))
        .with_mend(restart),
        (Some(value), _) => Finding::failed(
            STEP,
            Reason::UnknownMode,
            format!("the pod's label {} is {value}, which asks for nothing", label::INJECT),
        )
        .with_mend(format!("set the label {} to sidecar in the pod's template", label::INJECT)),
        (None, Some(value)) if value == "false" => Finding::failed(
            STEP,
            Reason::OptedOut,
            format!("the label {} of namespace {namespace} is false, so its pods are not injected", label::INJECT),
        )
        .with_mend(label_namespace)
        .with_mend(restart),
        (None, Some(value)) => Finding::failed(
            STEP,
            Reason::NamespaceMode,
            format!("the label {} of namespace {namespace} is {value}, which asks for nothing", label::INJECT),
        )
        .with_mend(label_namespace)
        .with_mend(restart),
        (None, None) => Finding::failed(
            STEP,
            Reason::NotAsked,
            format!("neither the pod nor its namespace {namespace} has the label {}", label::INJECT),
        )
        .with_mend(misplaced(about, pod).unwrap_or(label_namespace))
        .with_mend(restart),
    }
}

/// What is meant to be the label and is not: in another place, or misspelt.
fn misplaced(about: &About, pod: &Pod) -> Option<String> {
    let right = "labels of the pod's template (spec.template.metadata.labels), or of the namespace";
    let is_like = |key: &String| key.starts_with("countersign.dev/") && distance(key, label::INJECT) <= 3;
    let wrong = |map: &BTreeMap<String, String>| map.keys().find(|key| is_like(key)).cloned();
    let namespace = about.objects.namespaces.iter().find(|one| one.name_any() == about.namespace);
    if let Some(key) = wrong(pod.labels()) {
        return Some(format!("the pod has the label {key}: correct it to {} in the pod's template", label::INJECT));
    }
    if let Some(key) = wrong(pod.annotations()) {
        return Some(format!("the pod has the annotation {key}: {} belongs among the {right}", label::INJECT));
    }
    if let Some(key) = about.maker_labels.keys().find(|key| is_like(key)) {
        return Some(format!("what makes the pod has the label {key}: {} belongs among the {right}", label::INJECT));
    }
    let namespace = namespace?;
    if let Some(key) = wrong(namespace.labels()) {
        let name = &about.namespace;
        return Some(format!("kubectl label namespace {name} {key}- {}=sidecar", label::INJECT));
    }
    let key = wrong(namespace.annotations())?;
    Some(format!("the namespace has the annotation {key}: {} belongs among the {right}", label::INJECT))
}

fn token(about: &About, pod: &Pod) -> Finding {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    if volumes.into_iter().any(|volume| volume.name == TOKEN_VOLUME) {
        return Finding::ok("token", "the agent's token is projected into the pod");
    }
    let message =
        format!("the pod has no volume {TOKEN_VOLUME}, which the webhook adds: something changed the pod after it");
    Finding::failed("token", Reason::TokenVolumeRemoved, message)
        .with_mend("kubectl get mutatingwebhookconfigurations  # which other one changes pods?")
        .with_mend(format!(
            "kubectl delete pod --namespace {} {}  # once it is mended",
            about.namespace,
            pod.name_any()
        ))
}
