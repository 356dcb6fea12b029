//! Decides for each pod whether it is skipped, refused, or patched with the agent. The result is a pure function of the pod's
//! raw JSON, so unknown fields survive. [`POD`] lists the fields that are read.

mod agent;
mod decide;
mod existing_injection;
mod injected_pod;
mod mesh;
mod names;
mod options;
mod patch;
mod pod_fields;
mod pod_projection;
mod refusal;
mod resources;
mod run_as;
mod warnings;

use countersign_contract::metadata::annotation;
use serde_json::Value;

pub use decide::{Skip, Trigger};
pub use mesh::Mesh;
pub use options::{AgentOptions, PullPolicy};
pub(crate) use pod_projection::POD;
pub use refusal::Refusal;
pub use resources::{AgentResources, MilliCpu, NoMilliCpu};

use crate::control_plane::Settings;
use decide::{Decision, InjectionRequest};
use injected_pod::InjectedPod;

/// The result of an injection request.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The pod is left unchanged.
    Skip(Skip),
    /// The pod is injected. Without operations, it already has everything.
    Inject {
        /// RFC 6902, in the order of application.
        operations: Vec<Value>,
        /// Shown to the user who created the pod.
        warnings: Vec<String>,
    },
}

/// Decides about `pod`, the raw JSON of a `v1/Pod`.
///
/// # Errors
/// A typed reason to refuse the pod.
pub fn inject(pod: &Value, trigger: Trigger, options: &AgentOptions, settings: &Settings) -> Result<Outcome, Refusal> {
    let request = match decide::decide(pod, trigger)? {
        Decision::Skip(reason) => return Ok(Outcome::Skip(reason)),
        Decision::Inject(request) => request,
    };
    let run_as = run_as::choose(pod, &request.containers);
    let injected = InjectedPod::new(pod, &request, run_as, options, settings);
    existing_injection::check(pod, &request, &injected)?;
    let agent = existing_injection::agent(pod, &request, &injected, options, settings)?;
    let annotations = annotations(pod, &request, &injected, options, settings);
    let operations = patch::operations(pod, &request, &injected, agent, &annotations);
    let warnings = warnings::warnings(pod, &request, &injected, run_as);
    Ok(Outcome::Inject { operations, warnings })
}

/// The annotations that injection sets, for the operator and for meshes.
fn annotations(
    pod: &Value,
    request: &InjectionRequest,
    injected: &InjectedPod,
    options: &AgentOptions,
    settings: &Settings,
) -> Vec<(&'static str, String)> {
    let mut annotations = vec![(annotation::INJECTED, "sidecar".to_owned())];
    let mounts = existing_injection::sub_path_mounts(pod, request, injected);
    let mut stale: Vec<&str> = mounts.map(|(container, _)| container).collect();
    stale.dedup();
    if !stale.is_empty() {
        annotations.push((annotation::STALE_MOUNTS, stale.join(",")));
    }
    annotations.extend(mesh::annotations(pod, &options.meshes, settings));
    annotations
}
