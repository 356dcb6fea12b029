//! The agent's user and the mode of its files, as restrictive as the pod's security contexts allow.

use serde_json::Value;

use super::decide::ContainerRef;

/// The agent's user if the containers do not share one.
const DEFAULT_UID: i64 = 65532;

/// The agent's user, and the mode of the files it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunAs {
    pub(super) uid: i64,
    pub(super) file_mode: &'static str,
}

impl RunAs {
    /// Whether every user in a container can read the private key that is mounted there.
    pub(super) fn readable_by_all(self) -> bool {
        self.file_mode == "0444"
    }
}

/// If all `containers` run as one explicit uid, the agent runs as it too, and only that user can read the files. Otherwise,
/// with an `fsGroup`, that group can read them; without, every user of a container that mounts them can. The agent never runs
/// as root: it must satisfy the Pod Security Standard *restricted*.
pub(super) fn choose(pod: &Value, containers: &[ContainerRef]) -> RunAs {
    let of_pod = pod.pointer("/spec/securityContext/runAsUser").and_then(Value::as_i64);
    let uid = |container: &ContainerRef| {
        container.of(pod).pointer("/securityContext/runAsUser").and_then(Value::as_i64).or(of_pod)
    };
    let mut uids = containers.iter().map(uid);
    let first = uids.next().flatten();
    if let Some(shared) = first.filter(|uid| *uid > 0)
        && uids.all(|uid| uid == first)
    {
        return RunAs { uid: shared, file_mode: "0400" };
    }
    let fs_group = pod.pointer("/spec/securityContext/fsGroup").and_then(Value::as_i64);
    RunAs { uid: DEFAULT_UID, file_mode: if fs_group.is_some() { "0440" } else { "0444" } }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chosen(pod_context: Value, contexts: [Value; 2]) -> (i64, &'static str) {
        let [first, second] = contexts;
        let pod = json!({ "spec": { "securityContext": pod_context, "containers": [
            { "name": "a", "securityContext": first }, { "name": "b", "securityContext": second },
        ] } });
        let containers =
            [("a", 0), ("b", 1)].map(|(name, index)| ContainerRef { list: "containers", index, name: name.into() });
        let run_as = choose(&pod, &containers);
        (run_as.uid, run_as.file_mode)
    }

    #[test]
    fn files_are_as_tight_as_the_pod_allows() {
        let none = || json!({});
        let uid = |uid: i64| json!({ "runAsUser": uid });
        assert_eq!(chosen(none(), [none(), none()]), (65532, "0444"));
        assert_eq!(chosen(uid(1000), [none(), none()]), (1000, "0400"));
        assert_eq!(chosen(none(), [uid(7), uid(7)]), (7, "0400"));
        assert_eq!(chosen(uid(7), [none(), uid(7)]), (7, "0400"));
        assert_eq!(chosen(uid(7), [none(), uid(8)]), (65532, "0444"));
        assert_eq!(chosen(none(), [uid(7), none()]), (65532, "0444"));
        assert_eq!(chosen(json!({ "fsGroup": 5 }), [none(), uid(8)]), (65532, "0440"));
        assert_eq!(chosen(json!({ "fsGroup": 5, "runAsUser": 9 }), [none(), none()]), (9, "0400"));
    }

    #[test]
    fn root_is_never_taken_over() {
        assert_eq!(chosen(json!({ "runAsUser": 0 }), [json!({}), json!({})]), (65532, "0444"));
    }
}
