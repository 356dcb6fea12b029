//! What becomes of a pod: left alone with a reason, refused with a reason, or given the agent by a patch. All of it is a
//! pure function of the pod's raw JSON, so that fields this program has never heard of survive; [`POD`] names those it reads.

mod agent;
mod arrived;
mod decide;
mod fields;
mod mesh;
mod patch;
mod read;
mod refusal;
mod resources;
mod shape;
mod user;
mod warnings;

use countersign_crds::annotation;
use serde_json::Value;

pub use decide::{Asked, Skip};
pub use mesh::Mesh;
pub(crate) use read::POD;
pub use refusal::Refusal;
pub use resources::{AgentResources, MilliCpu, NoMilliCpu};
pub use shape::{AgentOptions, PullPolicy};

use crate::control_plane::Settings;

/// The label on pods and namespaces which asks for injection.
pub const INJECT_LABEL: &str = "countersign.dev/inject";

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
    let shape = shape::Shape::new(pod, &wanted, user, options, settings);
    arrived::check(pod, &wanted, &shape)?;
    let agent = arrived::agent(pod, &wanted, &shape, options, settings)?;
    let annotations = annotations(pod, &wanted, &shape, options, settings);
    let operations = patch::operations(pod, &wanted, &shape, agent, &annotations);
    let warnings = warnings::warnings(pod, &wanted, &shape, user);
    Ok(Outcome::Inject { operations, warnings })
}

/// What is left on the pod for those who look at it, and for meshes.
fn annotations(
    pod: &Value,
    wanted: &decide::Wanted,
    shape: &shape::Shape,
    options: &AgentOptions,
    settings: &Settings,
) -> Vec<(&'static str, String)> {
    let mut annotations = vec![(annotation::INJECTED, "sidecar".to_owned())];
    let mut stale: Vec<&str> = arrived::parts(pod, wanted, shape).map(|(container, _)| container).collect();
    stale.dedup();
    if !stale.is_empty() {
        annotations.push((annotation::NEVER_REFRESHES, stale.join(",")));
    }
    annotations.extend(mesh::annotations(pod, &options.meshes, settings));
    annotations
}
