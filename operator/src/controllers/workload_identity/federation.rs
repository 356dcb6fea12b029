//! The condition `Federated`: which of the foreign trust domains that a WorkloadIdentity names its pods get, and what keeps the
//! others away: one of the three consents, a bundle that is not there, or the limit of what one pod is sent.

use countersign_core::federation::{MAX_STREAM_LENGTH, fitting_stream};
use countersign_crds::condition::FEDERATED;
use countersign_index::IdentityView;
use countersign_issuer::published::Published;
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::controllers::conditions;

/// What is told of one that has a problem with a foreign trust domain; of more, how many there are.
const NAMED: usize = 4;

/// None where it names no foreign trust domain, or is not admitted.
pub(super) fn condition(
    view: &IdentityView,
    published: &Published,
    generation: Option<i64>,
    old: &[Condition],
    now: Timestamp,
) -> Option<Condition> {
    let foreign = view.outcome.as_ref().ok()?.foreign();
    if foreign.is_empty() {
        return None;
    }
    let lengths = foreign.iter().filter(|one| one.consent.is_ok()).filter_map(|one| {
        let is_remote = !published.signers.contains_key(&one.trust_domain);
        let bundle = published.bundles.get(&one.trust_domain).filter(|_| is_remote)?;
        Some((bundle.document.len(), &one.trust_domain))
    });
    let fitting = fitting_stream(lengths);
    let problems = foreign.iter().filter_map(|one| match &one.consent {
        Err(missing) => Some((missing.reason(), one.to_string())),
        Ok(_) if !published.bundles.contains_key(&one.trust_domain) => Some((
            Reason::NoBundle,
            format!(
                "{}: there is no bundle that is trusted; the conditions of its TrustDomain say why",
                one.trust_domain
            ),
        )),
        Ok(_) if fitting.contains(&one.trust_domain) || published.signers.contains_key(&one.trust_domain) => None,
        Ok(_) => Some((
            Reason::BundlesTooLong,
            format!(
                "{}: left out, since a pod is sent at most {} KiB of foreign bundles; name fewer trust domains",
                one.trust_domain,
                MAX_STREAM_LENGTH / 1024
            ),
        )),
    });
    let problems: Vec<(Reason, String)> = problems.collect();
    let total = foreign.len();
    let (status, reason, message) = match problems.first() {
        None => {
            let names: Vec<&str> = foreign.iter().take(NAMED).map(|one| one.trust_domain.as_str()).collect();
            let more = if total > NAMED { format!(" and {} more", total - NAMED) } else { String::new() };
            ("True", Reason::Complete, format!("pods have the bundles of {}{more}", names.join(", ")))
        }
        Some((reason, _)) => {
            let texts: Vec<&str> = problems.iter().take(NAMED).map(|(_, text)| text.as_str()).collect();
            let more =
                if problems.len() > NAMED { format!("; and {} more", problems.len() - NAMED) } else { String::new() };
            ("False", *reason, format!("{} of {total} missing: {}{more}", problems.len(), texts.join("; ")))
        }
    };
    Some(conditions::condition(FEDERATED, (status, reason, message), generation, old, now))
}
