//! Warnings for the creator of an admitted pod whose credentials are less protected than it may seem.

use serde_json::Value;

use super::{decide::InjectionRequest, existing_injection, injected_pod::InjectedPod, run_as::RunAs};

// Kubernetes may cut a warning after 256 characters.

const READABLE_BY_ALL: &str = "countersign: credential files are readable by every user of the containers that mount them \
    (mode 0444): these do not all run as one explicit uid; set securityContext.runAsUser (mode 0400) or fsGroup (mode 0440) \
    on the pod";

const SHARED_PROCESSES: &str = "countersign: shareProcessNamespace is true: through /proc a container can read files and \
    memory of others that run as the same user, identities too; leave it out, or give each container a user of its own";

const HOST_PROCESSES: &str = "countersign: hostPID is true: through /proc this pod's containers and the node's processes of \
    the same user can read each other's files and memory, identities too; leave it out";

/// The most `subPath` mounts that are warned about: the API server forwards 4 KiB of warnings in all.
const MOST_SUB_PATH_WARNINGS: usize = 16;

/// Warnings about the pod and about its injection.
pub(super) fn warnings(pod: &Value, request: &InjectionRequest, injected: &InjectedPod, run_as: RunAs) -> Vec<String> {
    let is_set = |pointer: &str| pod.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
    let mut warnings = Vec::new();
    if run_as.readable_by_all() {
        warnings.push(READABLE_BY_ALL.to_owned());
    }
    if is_set("/spec/shareProcessNamespace") {
        warnings.push(SHARED_PROCESSES.to_owned());
    }
    if is_set("/spec/hostPID") {
        warnings.push(HOST_PROCESSES.to_owned());
    }
    for (container, path) in existing_injection::sub_path_mounts(pod, request, injected).take(MOST_SUB_PATH_WARNINGS) {
        warnings.push(format!(
            "countersign: container `{container}` mounts a part of its identity at {path}: a subPath never refreshes, and the \
             credential there expires; read it below /run/countersign, or link to it"
        ));
    }
    warnings
}
