//! What becomes of a pod: left alone with a reason, refused with a reason, or given the agent by a patch. All of it is a
//! pure function of the pod's raw JSON, so that fields this program has never heard of survive.

mod agent;
mod arrived;
mod decide;
mod fields;
mod patch;
mod refusal;
mod shape;
mod user;

use serde_json::Value;

pub use decide::{Asked, Skip};
pub use refusal::Refusal;
pub use shape::{AgentOptions, PullPolicy};

use crate::control_plane::Settings;

/// The label on pods and namespaces which asks for injection.
pub const INJECT_LABEL: &str = "countersign.dev/inject";
/// The annotation left on pods that were injected.
pub const INJECTED_ANNOTATION: &str = "countersign.dev/injected";

/// What becomes of a pod.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// It is left as it is.
    Skip(Skip),
    /// It is injected. No operations: it already was, as it should be.
    Inject {
        /// RFC 6902, in the order of their application.
        operations: Vec<Value>,
        /// For whoever made the pod.
        warnings: Vec<String>,
    },
}

/// Decides what becomes of `pod`, the raw JSON of a `v1/Pod`.
///
/// # Errors
/// A typed reason to refuse the pod.
pub fn inject(pod: &Value, asked: Asked, options: &AgentOptions, settings: &Settings) -> Result<Outcome, Refusal> {
    let wanted = match decide::decide(pod, asked)? {
        decide::Decision::Skip(reason) => return Ok(Outcome::Skip(reason)),
        decide::Decision::Inject(wanted) => wanted,
    };
    let user = user::choose(pod, &wanted.containers);
    let shape = shape::Shape::new(&wanted, user, options, settings);
    arrived::check(pod, &wanted, &shape)?;
    let agent = arrived::agent(pod, &wanted, &shape, options, settings)?;
    let operations = patch::operations(pod, &wanted, &shape, agent);
    let warnings = user.readable_by_all().then(|| READABLE_BY_ALL.to_owned()).into_iter().collect();
    Ok(Outcome::Inject { operations, warnings })
}

const READABLE_BY_ALL: &str = "countersign: credential files in this pod are readable by every user of the containers that \
    mount them (mode 0444), since these do not all run as one explicit uid; set securityContext.runAsUser (mode 0400) or \
    fsGroup (mode 0440) on the pod";
