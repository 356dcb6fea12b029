//! From the pod to its agent: whether it lives, asks for injection, was injected, and still has its token.

use countersign_contract::{
    metadata::{annotation, label},
    pod::{AGENT, TOKEN_VOLUME},
};
use countersign_reasons::Reason;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{About, Step};
use crate::{
    cause::Cause,
    objects::{asks_for_injection, owner},
};

pub(super) fn steps(about: &About, pod: &Pod) -> Vec<Step> {
    vec![alive(pod), injected(about, pod), token(about, pod)]
}

fn alive(pod: &Pod) -> Step {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    match phase {
        "Succeeded" | "Failed" => Step::failed(
            "pod",
            Cause::new(Reason::PodEnded, format!("it is {phase}: a pod that has ended has no identity")),
        ),
        _ if pod.metadata.deletion_timestamp.is_some() => {
            Step::failed("pod", Cause::new(Reason::PodDeleted, "it is being deleted, and its identity ends with it"))
        }
        phase => Step::passed("pod", phase),
    }
}

fn injected(about: &About, pod: &Pod) -> Step {
    let (namespace, name) = (&about.namespace, pod.name_any());
    let has_agent = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).any(|one| one.name == AGENT);
    if let Some(mode) = pod.annotations().get(annotation::INJECTED) {
        if has_agent {
            return Step::passed("injection", format!("injected as {mode}"));
        }
        let message = format!(
            "the pod has the annotation {}, and no container {AGENT}: its template was copied from a pod that was injected",
            annotation::INJECTED
        );
        let mend =
            format!("remove the annotation {} from the template, and create the pod again", annotation::INJECTED);
        return Step::failed("injection", Cause::new(Reason::NotInjected, message).mend(mend));
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
        let cause = Cause::new(Reason::NotInjected, message);
        return Step::failed(
            "injection",
            cause.mend(restart).mend("kubectl countersign check  # if new pods lack it too"),
        );
    }
    let label_namespace = format!("kubectl label namespace {namespace} {}=sidecar --overwrite", label::INJECT);
    let cause = match (own, of_namespace) {
        (Some(value), _) if value == "false" => {
            Cause::new(Reason::OptedOut, format!("the pod's label {} is false, so it is not injected", label::INJECT))
                .mend(format!("set the label {} to sidecar in the pod's template, or remove it there", label::INJECT))
        }
        (Some(value), _) => Cause::new(
            Reason::UnknownMode,
            format!("the pod's label {} is {value}, which asks for nothing", label::INJECT),
        )
        .mend(format!("set the label {} to sidecar in the pod's template", label::INJECT)),
        (None, Some(value)) if value == "false" => Cause::new(
            Reason::OptedOut,
            format!("the label {} of namespace {namespace} is false, so its pods are not injected", label::INJECT),
        )
        .mend(label_namespace)
        .mend(restart),
        (None, Some(value)) => Cause::new(
            Reason::NamespaceMode,
            format!("the label {} of namespace {namespace} is {value}, which asks for nothing", label::INJECT),
        )
        .mend(label_namespace)
        .mend(restart),
        (None, None) => Cause::new(
            Reason::NotAsked,
            format!("neither the pod nor its namespace {namespace} has the label {}", label::INJECT),
        )
        .mend(label_namespace)
        .mend(restart),
    };
    Step::failed("injection", cause)
}

fn token(about: &About, pod: &Pod) -> Step {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    if volumes.into_iter().any(|volume| volume.name == TOKEN_VOLUME) {
        return Step::passed("token", "the agent's token is projected into the pod");
    }
    let message =
        format!("the pod has no volume {TOKEN_VOLUME}, which the webhook adds: something changed the pod after it");
    let cause = Cause::new(Reason::TokenVolumeRemoved, message)
        .mend("kubectl get mutatingwebhookconfigurations  # which other one changes pods?")
        .mend(format!("kubectl delete pod --namespace {} {}  # once it is mended", about.namespace, pod.name_any()));
    Step::failed("token", cause)
}
