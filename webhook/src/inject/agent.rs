//! The agent's container, which passes Pod Security's *restricted*.

use serde_json::{Value, json};

use super::{
    resources,
    shape::{AGENT, AgentOptions, NO_API_TOKEN, PRIVATE, Session, TOKEN},
    user::User,
};
use crate::control_plane::Settings;

/// Where the agent finds its token; the file is `token`.
const TOKEN_PATH: &str = "/var/run/secrets/countersign.dev";
/// Where the ServiceAccount admission plugin would mount the API's token, did the container not mount something there.
const API_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The agent's own directory.
const PRIVATE_PATH: &str = "/private";
/// What each memory volume may hold, in MiB. It counts in the memory limit of the container that writes it.
const MEMORY_VOLUME_MIB: u32 = 1;

/// The container that serves `sessions`.
pub(super) fn container(
    pod: &Value,
    sessions: &[Session],
    hold: bool,
    user: User,
    options: &AgentOptions,
    settings: &Settings,
) -> Value {
    let mut container = json!({
        "name": AGENT,
        "image": options.image,
        "imagePullPolicy": options.pull_policy.as_str(),
        "restartPolicy": "Always",
        "args": ["run"],
        "env": env(sessions, user, options, settings),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": user.uid,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(sessions),
    });
    let Some(fields) = container.as_object_mut() else { return container };
    let volumes = u32::try_from(sessions.len() + 1).unwrap_or(u32::MAX).saturating_mul(MEMORY_VOLUME_MIB);
    if let Some(resources) = resources::resources(pod, volumes, &options.resources) {
        fields.insert("resources".to_owned(), resources);
    }
    if hold {
        let command = ["/countersign-agent", "wait", "--timeout", "20s"];
        fields.insert("lifecycle".to_owned(), json!({ "postStart": { "exec": { "command": command } } }));
    }
    container
}

fn env(sessions: &[Session], user: User, options: &AgentOptions, settings: &Settings) -> Value {
    let sessions: Vec<String> =
        sessions.iter().map(|session| format!("{}={}", session.name, session.directory)).collect();
    let mut env = json!([
        { "name": "COUNTERSIGN_ISSUER", "value": settings.issuer },
        { "name": "COUNTERSIGN_ISSUER_NAME", "value": settings.issuer_name },
        { "name": "COUNTERSIGN_ROOTS", "value": settings.roots },
        { "name": "COUNTERSIGN_TOKEN_FILE", "value": format!("{TOKEN_PATH}/token") },
        { "name": "COUNTERSIGN_SESSIONS", "value": sessions.join(",") },
        { "name": "COUNTERSIGN_PRIVATE", "value": PRIVATE_PATH },
        { "name": "COUNTERSIGN_FILE_MODE", "value": user.file_mode },
    ]);
    if let (Some(filter), Some(env)) = (&options.log, env.as_array_mut()) {
        env.push(json!({ "name": "COUNTERSIGN_LOG", "value": filter }));
    }
    env
}

fn mounts(sessions: &[Session]) -> Vec<Value> {
    let mut mounts = vec![
        json!({ "name": TOKEN, "mountPath": TOKEN_PATH, "readOnly": true }),
        json!({ "name": NO_API_TOKEN, "mountPath": API_TOKEN_PATH, "readOnly": true }),
        json!({ "name": PRIVATE, "mountPath": PRIVATE_PATH }),
    ];
    mounts.extend(sessions.iter().map(|session| json!({ "name": session.volume, "mountPath": session.directory })));
    mounts
}
