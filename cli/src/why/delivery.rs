//! From what a pod is entitled to, to what it has: the node, the agent, and its containers.

use countersign_contract::{
    environment::application::ENDPOINT_SOCKET, files::IDENTITY, metadata::annotation, pod::AGENT,
};
use countersign_reasons::Reason;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

use super::{About, BESIDE};
use crate::{finding::Finding, objects::owner};

/// The step about the agent.
const DELIVERY: &str = "delivery";

pub(super) fn steps(about: &About, pod: &Pod) -> Vec<Finding> {
    vec![scheduled(about, pod), agent(about, pod), containers(about, pod)]
}

fn describe(about: &About, pod: &Pod) -> String {
    format!("kubectl describe pod --namespace {} {}", about.namespace, pod.name_any())
}

fn scheduled(about: &About, pod: &Pod) -> Finding {
    if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
        return Finding::ok("node", node);
    }
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let said = conditions.into_iter().find(|one| one.type_ == "PodScheduled").and_then(|one| one.message.clone());
    let message = said.unwrap_or_else(|| "the scheduler has not chosen a node yet".to_owned());
    Finding::failed("node", Reason::NotScheduled, message).with_mend(describe(about, pod))
}

fn agent(about: &About, pod: &Pod) -> Finding {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    let Some(agent) = init.into_iter().find(|status| status.name == AGENT) else {
        let message = format!("the kubelet has not started the agent yet{}", mount_failure(about, pod));
        return Finding::failed(DELIVERY, Reason::AgentNotStarted, message).with_mend(describe(about, pod));
    };
    if agent.started == Some(true) {
        return Finding::ok(DELIVERY, "the agent has its credentials");
    }
    not_started(about, pod, agent)
}

/// A volume that cannot be mounted keeps every container of the pod from starting.
fn mount_failure(about: &About, pod: &Pod) -> String {
    let is_it = |reason: Option<&str>| matches!(reason, Some("FailedMount" | "FailedAttachVolume"));
    let of_pod = about
        .events
        .iter()
        .rev()
        .filter(|event| event.involved_object.uid.is_some() && event.involved_object.uid == pod.metadata.uid);
    let said =
        of_pod.into_iter().find(|event| is_it(event.reason.as_deref())).and_then(|event| event.message.as_deref());
    said.map(|said| format!(": {said}")).unwrap_or_default()
}

/// Whether the agent ended because the pod had no identity then. It has one now, or this step was not reached.
fn had_none(about: &About) -> bool {
    about.agent_log.as_deref().is_some_and(|line| line.contains("has no identity"))
}

fn granted_since(about: &About, pod: &Pod) -> Finding {
    let text = "the pod had no identity when the agent ran last, and is entitled to one now: the kubelet starts the agent \
                again within five minutes";
    let (namespace, name) = (&about.namespace, pod.name_any());
    let again = match owner(pod) {
        Some((kind, maker)) => format!("kubectl rollout restart --namespace {namespace} {kind}/{maker}  # or wait"),
        None => format!("wait, or create the pod {name} again"),
    };
    Finding::failed(DELIVERY, Reason::AgentWaits, text).with_mend(again)
}

fn not_started(about: &About, pod: &Pod, agent: &ContainerStatus) -> Finding {
    let log = about.agent_log.as_deref().map(|line| format!("; its log ends with: {line}")).unwrap_or_default();
    let logs = |more: &str| {
        format!("kubectl logs --namespace {} {} --container {AGENT}{more}", about.namespace, pod.name_any())
    };
    let state = agent.state.as_ref();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let why = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        return match why {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable" => {
                let text = format!("the image {} of the agent is not pulled ({why}){message}", agent.image);
                Finding::failed(DELIVERY, Reason::AgentImageNotPulled, text).with_mend(describe(about, pod))
            }
            "CrashLoopBackOff" if had_none(about) => granted_since(about, pod),
            "CrashLoopBackOff" | "RunContainerError" | "CreateContainerError" | "CreateContainerConfigError" => {
                let text = format!("the agent cannot run ({why}){message}{log}");
                Finding::failed(DELIVERY, Reason::AgentCannotRun, text).with_mend(logs(" --previous"))
            }
            _ => {
                let failure = mount_failure(about, pod);
                let text = format!("the kubelet has not started the agent yet ({why}){message}{failure}");
                Finding::failed(DELIVERY, Reason::AgentNotStarted, text).with_mend(describe(about, pod))
            }
        };
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        if had_none(about) {
            return granted_since(about, pod);
        }
        let text = format!("the agent ended with exit code {}{log}", ended.exit_code);
        return Finding::failed(DELIVERY, Reason::AgentCannotRun, text).with_mend(logs(""));
    }
    let text = format!("the agent runs and has no credentials yet{log}");
    Finding::failed(DELIVERY, Reason::AgentWaits, text)
        .with_mend(logs(""))
        .with_mend("kubectl countersign check  # whether the operator can be reached, and signs")
}

/// What keeps a container from running, and whether its log may say more.
fn trouble(status: &ContainerStatus) -> Option<(String, bool)> {
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let why = waiting.reason.as_deref().filter(|why| *why != "PodInitializing" && *why != "ContainerCreating")?;
        let message = waiting.message.as_deref().unwrap_or_default();
        return Some((format!("{why} {message}"), status.restart_count > 0));
    }
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    Some((format!("it ended with exit code {}", ended.exit_code), true))
}

fn containers(about: &About, pod: &Pod) -> Finding {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    let own = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let mut all = init.filter(|status| status.name != AGENT).chain(own);
    let Some((name, why, has_log)) = all.find_map(|one| trouble(one).map(|(why, has_log)| (&one.name, why, has_log)))
    else {
        return Finding::ok("containers", "none of them is in trouble");
    };
    let text = format!("the pod has its identity, and container {name} does not run: {}", why.trim_end());
    let mend = if has_log {
        let (namespace, pod) = (&about.namespace, pod.name_any());
        format!("kubectl logs --namespace {namespace} {pod} --container {name} --previous")
    } else {
        describe(about, pod)
    };
    Finding::failed("containers", Reason::ContainersNotStarted, text).with_mend(mend)
}

/// Containers that do not see the identity of their pod.
pub(super) fn warnings(pod: &Pod) -> Vec<Finding> {
    let spec = pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let seeing = pod.annotations().get(annotation::CONTAINERS);
    let seeing: Option<Vec<&str>> = seeing.map(|names| names.split(',').map(str::trim).collect());
    let mut found = Vec::new();
    for container in containers.iter().filter(|container| container.name != AGENT) {
        let name = &container.name;
        if seeing.as_ref().is_some_and(|seeing| !seeing.contains(&name.as_str())) {
            let key = annotation::CONTAINERS;
            let text = format!("container {name} does not see the identity, since the annotation {key} leaves it out");
            found.push(
                Finding::warning(BESIDE, Reason::ContainerLeftOut, text)
                    .with_mend(format!("add {name} to {key} in the pod's template")),
            );
        }
        let socket = container.env.iter().flatten().find(|one| one.name == ENDPOINT_SOCKET);
        let elsewhere = socket.and_then(|one| one.value.as_deref()).filter(|value| !value.contains(IDENTITY));
        if let Some(value) = elsewhere {
            let variable = ENDPOINT_SOCKET;
            let text = format!("container {name} looks for its identity elsewhere: {variable} is {value}");
            let mend = format!("remove {variable} from the pod's template: the webhook sets it");
            found.push(Finding::warning(BESIDE, Reason::OtherSocket, text).with_mend(mend));
        }
    }
    found
}
