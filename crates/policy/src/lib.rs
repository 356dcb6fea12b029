//! The one interpretation of the API objects: what `core` decides by, and every field that cannot be used. Operator and webhook
//! share it, so that what is admitted is what is understood.

mod claims;
mod remote;
mod selectors;
mod trust_domain;
mod workload_identity;

use jiff::Timestamp;
use kube::Resource;

pub use claims::history as claim_history;
pub use trust_domain::{authority_config, grants, trust_domain};
pub use workload_identity::workload_identity;

/// When the API server made the object; one that is not stored yet counts as the youngest, so that it displaces nobody.
fn created(object: &impl Resource) -> Timestamp {
    object.meta().creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0)
}
