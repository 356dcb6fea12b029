//! From what a pod is entitled to, to what it has: the node, the agent, and its containers.

use countersign_contract::pod::AGENT;
use countersign_reasons::Reason;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

use super::{About, Step};
use crate::cause::Cause;

pub(super) fn steps(about: &About, pod: &Pod) -> Vec<Step> {
    vec![scheduled(about, pod), agent(about, pod), containers(about, pod)]
}

fn describe(about: &About, pod: &Pod) -> String {
    format!("kubectl describe pod --namespace {} {}", about.namespace, pod.name_any())
}

fn scheduled(about: &About, pod: &Pod) -> Step {
    if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
        return Step::passed("node", node);
    }
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let said = conditions.into_iter().find(|one| one.type_ == "PodScheduled").and_then(|one| one.message.clone());
    let message = said.unwrap_or_else(|| "the scheduler has not chosen a node yet".to_owned());
    Step::failed("node", Cause::new(Reason::NotScheduled, message).mend(describe(about, pod)))
}

fn agent(about: &About, pod: &Pod) -> Step {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    let Some(agent) = init.into_iter().find(|status| status.name == AGENT) else {
        let message = "the kubelet has not started the agent yet";
        return Step::failed("delivery", Cause::new(Reason::AgentNotStarted, message).mend(describe(about, pod)));
    };
    if agent.started == Some(true) {
        return Step::passed("delivery", "the agent has its credentials");
    }
    Step::failed("delivery", not_started(about, pod, agent))
}

fn not_started(about: &About, pod: &Pod, agent: &ContainerStatus) -> Cause {
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
                Cause::new(Reason::AgentImageNotPulled, text).mend(describe(about, pod))
            }
            "CrashLoopBackOff" | "RunContainerError" | "CreateContainerError" | "CreateContainerConfigError" => {
                let text = format!("the agent cannot run ({why}){message}{log}");
                Cause::new(Reason::AgentCannotRun, text).mend(logs(" --previous"))
            }
            _ => {
                let text = format!("the kubelet has not started the agent yet ({why}){message}");
                Cause::new(Reason::AgentNotStarted, text).mend(describe(about, pod))
            }
        };
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        let text = format!("the agent ended with exit code {}{log}", ended.exit_code);
        return Cause::new(Reason::AgentCannotRun, text).mend(logs(""));
    }
    let text = format!("the agent runs and has no credentials yet{log}");
    Cause::new(Reason::AgentWaits, text)
        .mend(logs(""))
        .mend("kubectl countersign check  # whether the operator can be reached, and signs")
}

fn containers(about: &About, pod: &Pod) -> Step {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let waiting = statuses.into_iter().find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let why = waiting.reason.as_deref().filter(|why| *why != "PodInitializing" && *why != "ContainerCreating")?;
        Some((status.name.as_str(), why, waiting.message.as_deref().unwrap_or_default()))
    });
    match waiting {
        Some((name, why, message)) => {
            let text = format!("the pod has its identity, and container {name} does not run: {why} {message}");
            let cause = Cause::new(Reason::ContainersNotStarted, text.trim_end());
            Step::failed("containers", cause.mend(describe(about, pod)))
        }
        None => Step::passed("containers", "none of them waits"),
    }
}
