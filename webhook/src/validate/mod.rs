//! Validation of single objects beyond what their definitions hold (`crds/`): every field must be one that the operator can use,
//! as [`countersign_policy`] reads it. What depends on other objects is reported as a condition in the status, so that objects may
//! be applied in any order.

mod resource_projection;
mod separation;
mod trust_domain;
mod unknown_authorities;
mod workload_identity;

use countersign_core::entitlement::{AudiencePattern, FieldErrors};
use countersign_crds::{TrustDomain, WorkloadIdentity};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use resource_projection::{RESOURCE, STORED, status, too_large};

/// Problems and warnings about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Each names the field, the problem, and what to do. Empty: the object is allowed.
    pub problems: Vec<String>,
    /// Shown to the user who applies it.
    pub warnings: Vec<String>,
}

/// An object of `countersign.dev` as it is read: its spec, and its metadata without `managedFields`.
#[derive(Debug)]
pub enum Resource {
    /// A TrustDomain.
    TrustDomain(Box<TrustDomain>),
    /// A WorkloadIdentity.
    WorkloadIdentity(Box<WorkloadIdentity>),
}

/// Reads and validates the JSON of an object of this kind. `stored` is the object that it replaces, null on creation. The object is
/// absent where it cannot be read; the answer is where the kind is not one of ours.
#[must_use]
pub fn resource(kind: &str, object: &Value, stored: &Value) -> Option<(Verdict, Option<Resource>)> {
    let checked = match kind {
        "TrustDomain" => read::<TrustDomain>(kind, object)
            .map(|object| (trust_domain::trust_domain(&object, stored), Resource::TrustDomain(Box::new(object)))),
        "WorkloadIdentity" => read::<WorkloadIdentity>(kind, object).map(|object| {
            (workload_identity::workload_identity(&object), Resource::WorkloadIdentity(Box::new(object)))
        }),
        _ => return None,
    };
    Some(match checked {
        Ok((verdict, resource)) => (verdict, Some(resource)),
        Err(malformed) => (malformed, None),
    })
}

fn read<T: DeserializeOwned>(kind: &str, object: &Value) -> Result<T, Verdict> {
    T::deserialize(object).map_err(|error| Verdict::malformed(kind, &error))
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

#[cfg(test)]
mod testing {
    use super::{Value, Verdict, resource};

    pub(super) fn trust_domain(object: &Value, stored: &Value) -> Verdict {
        resource("TrustDomain", object, stored).expect("a kind of ours").0
    }

    pub(super) fn workload_identity(object: &Value) -> Verdict {
        resource("WorkloadIdentity", object, &Value::Null).expect("a kind of ours").0
    }
}
