//! TrustDomains: whether their authorities sign, when these switch, and what their conditions say; of remote ones, whether their
//! bundle is trusted and confirmed.

use std::time::Duration;

use countersign_contract::objects::{ENDPOINT, ENDPOINT_NAMESPACE, OPERATOR};
use countersign_crds::{AuthorityState, AuthorityStatus, TrustDomain, condition};
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::category::Category;
use crate::{
    finding::Finding,
    installation::Replicas,
    objects::condition_of,
    output::Mark,
    reading::{Gap, Reading},
    times::relative,
};

/// How long a switch, or the status of a new spec, may be late.
const LATE: Duration = Duration::from_secs(120);

/// How long agents may take to acknowledge a bundle before it is worth a warning: they are asked every 30 s.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(300);

/// Conditions that are a problem while they are false.
const FALSE_IS_A_PROBLEM: [&str; 6] = [
    condition::BUNDLE_ACKNOWLEDGED,
    condition::BUNDLE_SEQUENCE_CONSISTENT,
    condition::REQUESTED_AUTHORITIES_KNOWN,
    condition::NAMESPACES_SEPARATED,
    condition::JWT_ISSUER_USABLE,
    condition::CONSENTS_COMPLETE,
];

/// Conditions that are there only while they are a problem.
const TRUE_IS_A_PROBLEM: [&str; 13] = [
    "BootstrapExpiring",
    "BootstrapNotNewer",
    "BootstrapRefused",
    "BootstrapReplaceSet",
    "BootstrapWithoutEnd",
    "EndpointNotVerifiable",
    "KeysDropped",
    "PollFailing",
    "SequenceMissing",
    "SequenceReused",
    condition::SHARED_ANCHOR,
    "StoredUnreadable",
    "TrustsNothing",
];

/// Of which this cluster is the authority.
pub(super) fn local(domains: &Reading<Vec<TrustDomain>>, system: &str, now: Timestamp) -> Category {
    let name = "authorities";
    let domains = match domains {
        Reading::Found(domains) => domains,
        other => return Category::new(name, vec![Finding::gap("TrustDomains", other.gap().unwrap_or(Gap::Absent))]),
    };
    let checks: Vec<Finding> = domains
        .iter()
        .filter(|domain| domain.spec.remote.is_none())
        .flat_map(|domain| of_domain(domain, system, now))
        .collect();
    if !checks.is_empty() {
        return Category::new(name, checks);
    }
    let check = Finding::warning(
        "TrustDomains",
        Reason::NoTrustDomains,
        "there is no TrustDomain of this cluster: no pod gets an identity",
    )
    .with_mends("kubectl apply -f manifests/samples/trustdomain.yaml\nwith a name and grants of your own");
    Category::new(name, vec![check])
}

/// Of which another cluster is the authority, and this cluster's own endpoint.
pub(super) fn remote(
    domains: &Reading<Vec<TrustDomain>>,
    endpoint: &Reading<Replicas>,
    system: &str,
    now: Timestamp,
) -> Category {
    let name = "federation";
    let domains = match domains {
        Reading::Found(domains) => domains,
        other => return Category::new(name, vec![Finding::gap("TrustDomains", other.gap().unwrap_or(Gap::Absent))]),
    };
    let remote = domains.iter().filter(|domain| domain.spec.remote.is_some());
    let mut checks: Vec<Finding> = remote.flat_map(|domain| of_domain(domain, system, now)).collect();
    if checks.is_empty() {
        checks.push(Finding::ok("remote", "there are no remote TrustDomains"));
    }
    checks.push(endpoint_check(endpoint));
    Category::new(name, checks)
}

fn endpoint_check(endpoint: &Reading<Replicas>) -> Finding {
    let name = "endpoint";
    let hint = format!("kubectl describe pods -n {ENDPOINT_NAMESPACE}");
    match endpoint {
        Reading::Found(Replicas { wanted, ready: 0, .. }) => {
            let message =
                format!("no replica of the bundle endpoint is ready, of {wanted}: peers keep the bundles they have");
            Finding::failed(name, Reason::ComponentNotReady, message).with_mends(hint)
        }
        Reading::Found(Replicas { wanted, ready, .. }) if ready < wanted => {
            let message = format!("{ready} of {wanted} replicas of the bundle endpoint are ready");
            Finding::warning(name, Reason::ReplicasMissing, message).with_mends(hint)
        }
        Reading::Found(Replicas { wanted, ready, .. }) => {
            Finding::ok(name, format!("{ready} of {wanted} replicas of the bundle endpoint are ready"))
        }
        Reading::Absent => {
            Finding::ok(name, format!("the bundle endpoint ({ENDPOINT}) is not installed; it is optional"))
        }
        other => Finding::gap(name, other.gap().unwrap_or(Gap::Absent)),
    }
}

/// One check of what is ready, and one for each problem beside it.
fn of_domain(domain: &TrustDomain, system: &str, now: Timestamp) -> Vec<Finding> {
    let mut checks = vec![ready(domain, system, now)];
    checks.extend(overdue(domain, system, now));
    checks.extend(other_conditions(domain, now));
    checks
}

fn ready(domain: &TrustDomain, system: &str, now: Timestamp) -> Finding {
    let object = domain.name_any();
    let name = if domain.spec.remote.is_some() { "remote" } else { "local" };
    let logs = format!("kubectl logs -n {system} deployment/{OPERATOR}");
    let Some(status) = domain.status.as_ref().filter(|status| !status.conditions.is_empty()) else {
        let new = domain.metadata.creation_timestamp.as_ref().is_some_and(|time| time.0 + LATE > now);
        let mark = if new { Mark::Warning } else { Mark::Failed };
        let message = format!("{object} has no status: the operator has not looked at it");
        return Finding::failed(name, Reason::StatusUnknown, message).marked(mark).with_mends(logs);
    };
    if status.observed_generation != domain.metadata.generation {
        let message =
            format!("the status of {object} is of an earlier spec: the operator has not looked at the new one");
        return Finding::warning(name, Reason::StatusOutdated, message).with_mends(logs);
    }
    match condition_of(&status.conditions, condition::READY) {
        Some(ready) if ready.status == "True" => Finding::ok(name, format!("{object}: {}", what_is(domain, now))),
        Some(ready) => {
            // A remote one that waits for a poll is no problem of this installation.
            let reconciles =
                condition_of(&status.conditions, condition::RECONCILING).is_some_and(|one| one.status == "True");
            let mark = if reconciles && domain.spec.remote.is_some() { Mark::Warning } else { Mark::Failed };
            Finding::ok(name, format!("{object}: {}", ready.message))
                .marked(mark)
                .because(&ready.reason)
                .with_mends(format!("kubectl describe trustdomain {object}"))
        }
        None => {
            Finding::failed(name, Reason::StatusUnknown, format!("{object} has no condition Ready")).with_mends(logs)
        }
    }
}

/// What is good to know of one that is ready.
fn what_is(domain: &TrustDomain, now: Timestamp) -> String {
    let status = domain.status.as_ref();
    let mut parts = Vec::new();
    if let Some(remote) = status.and_then(|status| status.remote.as_ref()) {
        let confirmed = remote.confirmed_at.as_ref().map(|time| format!("confirmed {}", relative(time.0, now)));
        let until = remote.trusted_until.as_ref().map(|time| format!("trusted until {}", time.0));
        parts.extend(confirmed.into_iter().chain(until));
    } else {
        parts.push("it signs".to_owned());
        let next = status.and_then(|status| status.next_switch.as_ref());
        parts.extend(next.map(|time| format!("next switch {}, at {}", relative(time.0, now), time.0)));
        let bundle = status.and_then(|status| status.bundle.as_ref());
        parts.extend(
            bundle.and_then(|bundle| bundle.acknowledged.as_ref()).map(|of| format!("bundle acknowledged by {of}")),
        );
    }
    if parts.is_empty() { "it is trusted".to_owned() } else { parts.join("; ") }
}

/// Authorities that should have switched by now.
fn overdue(domain: &TrustDomain, system: &str, now: Timestamp) -> Option<Finding> {
    let status = domain.status.as_ref()?;
    let is_late =
        |authority: &&AuthorityStatus| authority.state == AuthorityState::Active && authority.retire_at.0 + LATE < now;
    let late = status.authorities.iter().find(is_late)?;
    let message = format!(
        "{}: an authority of {} should have retired {}, and no other has taken over",
        domain.name_any(),
        kind(late),
        relative(late.retire_at.0, now)
    );
    Some(
        Finding::failed("switch", Reason::SwitchOverdue, message)
            .with_mends(format!("kubectl logs -n {system} deployment/{OPERATOR}\nof the replica that leads")),
    )
}

fn kind(authority: &AuthorityStatus) -> &'static str {
    match authority.kind {
        countersign_crds::AuthorityKind::X509 => "X.509-SVIDs",
        countersign_crds::AuthorityKind::Jwt => "JWT-SVIDs",
        countersign_crds::AuthorityKind::Wit => "WIT-SVIDs",
    }
}

fn other_conditions(domain: &TrustDomain, now: Timestamp) -> Vec<Finding> {
    let object = domain.name_any();
    let conditions = domain.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| is_problem(condition, now))
        .map(|condition| {
            Finding::ok("condition", format!("{object}: {}: {}", condition.type_, condition.message))
                .marked(Mark::Warning)
                .because(&condition.reason)
                .with_mends(format!("kubectl describe trustdomain {object}"))
        })
        .collect()
}

fn is_problem(found: &Condition, now: Timestamp) -> bool {
    match found.status.as_str() {
        // Every new bundle is waited for, for a moment.
        "False" if found.type_ == condition::BUNDLE_ACKNOWLEDGED => {
            found.last_transition_time.0 + ACKNOWLEDGEMENT < now
        }
        "False" => FALSE_IS_A_PROBLEM.contains(&found.type_.as_str()),
        "True" => TRUE_IS_A_PROBLEM.contains(&found.type_.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
