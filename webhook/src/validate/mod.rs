//! Validation of single objects beyond what their definitions hold (`crds/`): every field must be one that the operator can use,
//! as [`countersign_policy`] reads it. What depends on other objects is reported as a condition in the status, so that objects may
//! be applied in any order.

mod resource_projection;
mod separation;
mod trust_domain;
mod unknown_authorities;
mod workload_identity;

use countersign_core::entitlement::{AudiencePattern, FieldErrors};
pub(crate) use resource_projection::{RESOURCE, STORED, too_large};

pub use trust_domain::trust_domain;
pub use workload_identity::workload_identity;

/// Problems and warnings about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Each names the field, the problem, and what to do. Empty: the object is allowed.
    pub problems: Vec<String>,
    /// Shown to the user who applies it.
    pub warnings: Vec<String>,
}

/// Warns of audience prefixes that may cover more than intended.
fn warn_of_open_prefixes(field: &str, audiences: &[AudiencePattern], verdict: &mut Verdict) {
    for (index, audience) in audiences.iter().enumerate().filter(|(_, audience)| !audience.ends_at_boundary()) {
        verdict.warnings.push(format!(
            "{field}[{index}]: the prefix {audience} does not end at a boundary: as https://a.org* covers https://a.org.evil.com, it may cover audiences of others; end it with / or :, after the host and port of a URL"
        ));
    }
}

impl Verdict {
    fn malformed(kind: &str, error: &serde_json::Error) -> Self {
        Self {
            problems: vec![format!("the object cannot be read as a {kind} of countersign.dev/v1alpha1: {error}")],
            warnings: vec![],
        }
    }

    fn refuse(&mut self, errors: &FieldErrors) {
        self.problems.extend(errors.iter().map(ToString::to_string));
    }
}
