//! What whoever makes a pod should know: it is let through, and something of it is weaker than it looks.

use serde_json::Value;

use super::{arrived, decide::Wanted, shape::Shape, user::User};

// Kubernetes may cut a warning after 256 characters.

const READABLE_BY_ALL: &str = "countersign: credential files are readable by every user of the containers that mount them \
    (mode 0444): these do not all run as one explicit uid; set securityContext.runAsUser (mode 0400) or fsGroup (mode 0440) \
    on the pod";

const SHARED_PROCESSES: &str = "countersign: shareProcessNamespace is true: through /proc a container can read files and \
    memory of others that run as the same user, identities too; leave it out, or give each container a user of its own";

const HOST_PROCESSES: &str = "countersign: hostPID is true: through /proc this pod's containers and the node's processes of \
    the same user can read each other's files and memory, identities too; leave it out";

/// Of how many mounts with a part of an identity there is a warning: the API server passes on 4 KiB of warnings in all.
const MOST_PARTS: usize = 16;

/// Warnings about the pod, and for `shape` in it.
pub(super) fn warnings(pod: &Value, wanted: &Wanted, shape: &Shape, user: User) -> Vec<String> {
    let is_set = |pointer: &str| pod.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
    let mut warnings = Vec::new();
    if user.readable_by_all() {
        warnings.push(READABLE_BY_ALL.to_owned());
    }
    if is_set("/spec/shareProcessNamespace") {
        warnings.push(SHARED_PROCESSES.to_owned());
    }
    if is_set("/spec/hostPID") {
        warnings.push(HOST_PROCESSES.to_owned());
    }
    for (container, path) in arrived::parts(pod, wanted, shape).take(MOST_PARTS) {
        warnings.push(format!(
            "countersign: container `{container}` mounts a part of its identity at {path}: a subPath never refreshes, and the \
             credential there expires; read it below /run/countersign, or link to it"
        ));
    }
    warnings
}
