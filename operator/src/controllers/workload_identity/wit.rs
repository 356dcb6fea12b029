//! The condition `WITAvailable`: whether pods get the WIT-SVIDs that a WorkloadIdentity asks for, and what is missing otherwise.

use countersign_crds::condition::WIT_AVAILABLE;
use countersign_index::IdentityView;
use countersign_issuer::published::Published;
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::controllers::conditions;

/// None where it asks for no WIT-SVIDs, or is not admitted.
pub(super) fn condition(
    view: &IdentityView,
    published: &Published,
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> Option<Condition> {
    let judged = view.outcome.as_ref().ok()?;
    let domain = judged.outcome().ok()?;
    judged.identity().wit?;
    let state = if domain.wit.is_none() {
        let message = format!(
            "pods get no WIT-SVIDs: TrustDomain {} has no spec.authority.wit; ask its owner for `wit: {{}}` there",
            domain.name
        );
        ("False", Reason::NoWITAuthority, message)
    } else if published.signers.get(&judged.identity().trust_domain).is_some_and(|signers| signers.wit.is_some()) {
        ("True", Reason::Issued, "pods get WIT-SVIDs".to_owned())
    } else {
        let message =
            format!("TrustDomain {} has no WIT authority that signs yet; its status says which there are", domain.name);
        ("False", Reason::AuthorityNotReady, message)
    };
    Some(conditions::condition(WIT_AVAILABLE, state, generation, old, now))
}
