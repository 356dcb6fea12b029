//! Whether what pods have of an identity is renewed in time. It says nothing of the identity, which stays `Ready`: a
//! container that mounts a part of it by `subPath` keeps the file of its start, and nobody but its owner can change that.

use countersign_crds::condition::CREDENTIALS_REFRESHABLE;
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::controllers::conditions;
use countersign_index::IdentityView;

/// The condition `CredentialsRefreshable`; none while no pod may get the identity: then there is nothing to renew.
pub(super) fn condition(
    view: &IdentityView,
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> Option<Condition> {
    super::granting(view)?;
    let (status, reason, message) = if view.never_refresh == 0 {
        ("True", Reason::NoSubPathMount, "no pod has a part of this identity mounted by subPath".to_owned())
    } else {
        ("False", Reason::SubPathMount, sub_path_mount(view))
    };
    Some(conditions::condition(CREDENTIALS_REFRESHABLE, (status, reason, message), generation, old, now))
}

fn sub_path_mount(view: &IdentityView) -> String {
    let named = view.some_never_refresh.join(", ");
    let more = match view.never_refresh.saturating_sub(view.some_never_refresh.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{} of {} pods have a part of their identity mounted by subPath, where it never refreshes and then expires: \
         {named}{more}; read it below /run/countersign, where the whole directory is mounted, and take the subPath mount out",
        view.never_refresh, view.matched
    )
}
