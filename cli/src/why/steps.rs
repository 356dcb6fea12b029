//! Each step: what it looks at, and what is wrong.

use countersign_contract::{
    metadata::{annotation, label},
    pod::{AGENT, TOKEN_VOLUME},
};
use countersign_index::{Entitlement, Index};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

use super::{About, Step};
use crate::objects::{asks_for_injection, sessions, uid};

/// The steps in order. What comes after one that fails is not looked at.
pub(super) fn all(about: &About) -> Vec<Step> {
    let Some(pod) = about.objects.pods.first() else {
        return vec![failed("pod", "NotFound", format!("there is no pod {} in {}", about.pod, about.namespace), None)];
    };
    let index = about.objects.index("");
    vec![alive(pod), injected(about, pod), token(pod), entitled(&index, pod), delivered(pod)]
}

fn alive(pod: &Pod) -> Step {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    match phase {
        "Succeeded" | "Failed" => {
            failed("pod", "Ended", format!("it is {phase}: a pod that has ended has no identity"), None)
        }
        _ if pod.metadata.deletion_timestamp.is_some() => {
            failed("pod", "Deleted", "it is being deleted, and its identity ends with it".to_owned(), None)
        }
        phase => passed("pod", phase.to_owned()),
    }
}

fn injected(about: &About, pod: &Pod) -> Step {
    if let Some(mode) = pod.annotations().get(annotation::INJECTED) {
        return passed("injection", format!("injected as {mode}"));
    }
    let value = about.objects.injection(pod);
    if asks_for_injection(value.as_deref()) {
        let message =
            "the label asks for injection, and the pod was created before it was there or while the webhook was away";
        let mend = format!("kubectl delete pod -n {} {}, so that it is created again", about.namespace, about.pod);
        return failed("injection", "NotInjected", message.to_owned(), Some(mend));
    }
    let found = value.map_or_else(|| "no label".to_owned(), |value| format!("the value {value}"));
    let message = format!("neither the pod nor its namespace asks for injection: {found} of {}", label::INJECT);
    let mend =
        format!("kubectl label namespace {} {}=sidecar, and create the pod again", about.namespace, label::INJECT);
    failed("injection", "NotRequested", message, Some(mend))
}

fn token(pod: &Pod) -> Step {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    if volumes.into_iter().any(|volume| volume.name == TOKEN_VOLUME) {
        return passed("token", "the agent has its token".to_owned());
    }
    let message = format!("the pod has no volume {TOKEN_VOLUME}: somebody has removed it after injection");
    failed("token", "NoToken", message, Some("look for another mutating webhook that removes volumes".to_owned()))
}

fn entitled(index: &Index, pod: &Pod) -> Step {
    let mut ids = Vec::new();
    for session in sessions(pod) {
        match index.entitlement(&uid(pod), &session) {
            Entitlement::Entitled(entitled) => ids.extend(entitled.iter().map(|one| one.id.to_string())),
            Entitlement::None(absence) => return failed("identity", absence.reason, absence.message, None),
            Entitlement::Gone => return failed("identity", "Gone", "the pod has ended".to_owned(), None),
        }
    }
    passed("identity", ids.join(", "))
}

fn delivered(pod: &Pod) -> Step {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    let Some(agent) = statuses.into_iter().find(|status| status.name == AGENT) else {
        return failed("delivery", "NoAgent", "the kubelet has not started the agent yet".to_owned(), None);
    };
    if agent.started == Some(true) {
        return passed("delivery", "the agent has its credentials".to_owned());
    }
    let logs = format!("kubectl logs -n {} {} -c {AGENT}", pod.namespace().unwrap_or_default(), pod.name_any());
    failed("delivery", "AgentNotReady", waiting(agent), Some(logs))
}

fn waiting(agent: &ContainerStatus) -> String {
    let state = agent.state.as_ref();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        return format!("the agent does not run: {reason} {}", waiting.message.as_deref().unwrap_or_default());
    }
    "the agent runs and has no credentials yet; its log says what it waits for".to_owned()
}

fn passed(name: &'static str, message: String) -> Step {
    Step { name, passed: true, reason: None, message, mend: None }
}

fn failed(name: &'static str, reason: impl Into<String>, message: String, mend: Option<String>) -> Step {
    Step { name, passed: false, reason: Some(reason.into()), message, mend }
}
