//! The agent's container. It satisfies the Pod Security Standard *restricted*.

use countersign_contract::{
    environment::{self, agent as variable},
    files,
    pod::{AGENT, NO_API_TOKEN_VOLUME, PRIVATE_VOLUME, TOKEN_VOLUME},
};
use serde_json::{Value, json};

use super::{decide::InjectionRequest, options::AgentOptions, resources, run_as::RunAs};
use crate::control_plane::Settings;

/// The path at which the ServiceAccount admission plugin mounts the API token unless the container mounts something there.
const API_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Size limit of the memory volume of a session, in MiB: two sets of files, each with the foreign bundles that one stream is sent.
/// The contents of memory volumes count towards the memory limit of the container that writes them.
pub(super) const IDENTITY_VOLUME_MIB: u32 = 2;
/// Size limit of the agent's own memory volume, in MiB.
pub(super) const PRIVATE_VOLUME_MIB: u32 = 1;

/// One session of the agent.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The container's name, or "" for the session of the whole pod.
    pub(super) name: String,
    pub(super) volume: String,
    /// The mount path in the agent's container.
    pub(super) directory: String,
}

/// The container that serves `sessions`.
pub(super) fn container(
    pod: &Value,
    sessions: &[Session],
    request: &InjectionRequest,
    run_as: RunAs,
    options: &AgentOptions,
    settings: &Settings,
) -> Value {
    let mut container = json!({
        "name": AGENT,
        "image": options.image,
        "imagePullPolicy": options.pull_policy.as_str(),
        "restartPolicy": "Always",
        "args": ["run"],
        "env": env(sessions, request, run_as, options, settings),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": run_as.uid,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(sessions),
    });
    let Some(fields) = container.as_object_mut() else { return container };
    let identities = u32::try_from(sessions.len()).unwrap_or(u32::MAX).saturating_mul(IDENTITY_VOLUME_MIB);
    let volumes = identities.saturating_add(PRIVATE_VOLUME_MIB);
    if let Some(resources) = resources::resources(pod, volumes, &options.resources) {
        fields.insert("resources".to_owned(), resources);
    }
    if request.hold {
        let command = ["/countersign-agent", "wait", "--timeout", "20s"];
        fields.insert("lifecycle".to_owned(), json!({ "postStart": { "exec": { "command": command } } }));
    }
    container
}

fn env(
    sessions: &[Session],
    request: &InjectionRequest,
    run_as: RunAs,
    options: &AgentOptions,
    settings: &Settings,
) -> Value {
    let sessions: Vec<String> =
        sessions.iter().map(|session| format!("{}={}", session.name, session.directory)).collect();
    let mut env = json!([
        { "name": variable::ISSUER, "value": settings.issuer },
        { "name": variable::ISSUER_NAME, "value": settings.issuer_name },
        { "name": variable::ROOTS, "value": settings.roots },
        { "name": variable::TOKEN_FILE, "value": files::TOKEN_FILE },
        { "name": variable::SESSIONS, "value": sessions.join(",") },
        { "name": variable::PRIVATE, "value": files::PRIVATE },
        { "name": variable::FILE_MODE, "value": run_as.file_mode },
    ]);
    let documents = request.bundle_documents.then_some((variable::BUNDLE_DOCUMENTS, "true"));
    let log = options.log.as_deref().map(|filter| (environment::LOG, filter));
    if let Some(env) = env.as_array_mut() {
        env.extend(documents.into_iter().chain(log).map(|(name, value)| json!({ "name": name, "value": value })));
    }
    env
}

fn mounts(sessions: &[Session]) -> Vec<Value> {
    let mut mounts = vec![
        json!({ "name": TOKEN_VOLUME, "mountPath": files::TOKEN_DIRECTORY, "readOnly": true }),
        json!({ "name": NO_API_TOKEN_VOLUME, "mountPath": API_TOKEN_PATH, "readOnly": true }),
        json!({ "name": PRIVATE_VOLUME, "mountPath": files::PRIVATE }),
    ];
    mounts.extend(sessions.iter().map(|session| json!({ "name": session.volume, "mountPath": session.directory })));
    mounts
}
