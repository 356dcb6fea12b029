//! Makes a screen of what was read. Pure.

use std::collections::BTreeMap;

use countersign_crds::{AuthorityState, TrustDomain, WorkloadIdentity, condition};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Event, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt as _;

use super::{Component, Count, Domain, Identities, Pods, Report, Warning, observe::Seen};
use crate::{
    installation::{Leader, Replicas},
    objects::condition_of,
    output::Mark,
    reading::{Gap, Reading, full_name},
};

/// How many events are shown.
const WARNINGS: usize = 5;

pub(super) fn report(seen: &Seen, now: Timestamp) -> Report {
    let mut gaps = Vec::new();
    let mut note = |what: &str, gap: Option<Gap<'_>>| gaps.extend(gap.map(|gap| format!("{what}: {gap}")));
    let leader = seen.leader.found().and_then(Leader::pod).map(str::to_owned);
    note("leader", seen.leader.gap());
    let parts = [
        ("operator", &seen.operator, leader),
        ("webhook", &seen.webhook, None),
        ("webhook CA", &seen.webhook_ca, None),
        ("endpoint", &seen.endpoint, None),
    ];
    let mut components = Vec::new();
    for (name, replicas, leader) in parts {
        match replicas {
            Reading::Found(replicas) => components.push(component(name, replicas, leader)),
            // It is optional.
            Reading::Absent if name == "endpoint" => {}
            other => note(name, other.gap()),
        }
    }
    note("trust domains", seen.domains.gap());
    note("workload identities", seen.identities.gap());
    note("events", seen.events.gap());
    Report {
        at: now,
        components,
        trust_domains: seen.domains.found().map(|domains| domains.iter().map(domain).collect()),
        identities: seen.identities.found().map(|found| identities(found)),
        pods: seen.identities.found().map(|found| pods(found)),
        warnings: warnings(seen.events.items()),
        gaps,
    }
}

fn component(name: &'static str, replicas: &Replicas, leader: Option<String>) -> Component {
    let mark = match replicas.ready {
        0 => Mark::Failed,
        ready if ready < replicas.wanted => Mark::Warning,
        _ => Mark::Ok,
    };
    let images = replicas.images.iter().cloned().collect();
    Component { name, mark, wanted: replicas.wanted, ready: replicas.ready, leader, images }
}

fn ready(conditions: &[Condition]) -> (bool, String) {
    let found = condition_of(conditions, condition::READY);
    found.map_or_else(|| (false, "StatusUnknown".to_owned()), |found| (found.status == "True", found.reason.clone()))
}

fn domain(domain: &TrustDomain) -> Domain {
    let status = domain.status.clone().unwrap_or_default();
    let (ready, reason) = ready(&status.conditions);
    let signing = status.authorities.iter().filter(|authority| authority.state == AuthorityState::Active);
    let kind = |authority: &countersign_crds::AuthorityStatus| {
        serde_json::to_value(authority.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default()
    };
    Domain {
        name: domain.name_any(),
        kind: if domain.spec.remote.is_some() { "remote" } else { "local" },
        ready,
        reason,
        signing: signing.map(|authority| format!("{} {}", kind(authority), authority.id)).collect(),
        next_switch: status.next_switch.map(|time| time.0),
        sequence: status.bundle.as_ref().map(|bundle| bundle.sequence),
        acknowledged: status.bundle.and_then(|bundle| bundle.acknowledged),
        confirmed: status.remote.and_then(|remote| remote.confirmed_at).map(|time| time.0),
    }
}

fn identities(identities: &[WorkloadIdentity]) -> Identities {
    let mut by_reason: BTreeMap<(bool, String), Count> = BTreeMap::new();
    for identity in identities {
        let conditions = identity.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let (ready, reason) = ready(conditions);
        let new = || Count { reason: reason.clone(), ready, count: 0, example: full_name(identity) };
        by_reason.entry((!ready, reason.clone())).or_insert_with(new).count += 1;
    }
    let expiries = identities.iter().filter_map(|one| one.status.as_ref()?.next_expiry.as_ref()).map(|time| time.0);
    Identities { total: identities.len(), by_reason: by_reason.into_values().collect(), next_expiry: expiries.min() }
}

fn pods(identities: &[WorkloadIdentity]) -> Pods {
    let mut sum = Pods::default();
    let counts = identities.iter().filter_map(|identity| identity.status.as_ref()?.pods);
    // A sum without those of whom it is not known would look like a loss.
    sum.held = counts.clone().filter(|pods| pods.served.is_some_and(|served| served > 0)).map(|pods| pods.held).sum();
    for status in identities.iter().filter_map(|identity| identity.status.as_ref()) {
        sum.undelivered += status.undelivered.len();
        sum.outdated_agents += status.outdated_agents.unwrap_or(0);
        if let Some(pods) = &status.pods {
            sum.matched += pods.matched;
            sum.served += pods.served.unwrap_or(0);
            sum.not_injected += pods.not_injected;
        }
    }
    sum
}

fn warnings(events: &[Event]) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = events.iter().filter_map(warning).collect();
    warnings.sort_by(|one, other| other.at.cmp(&one.at).then_with(|| one.object.cmp(&other.object)));
    warnings.truncate(WARNINGS);
    warnings
}

fn warning(event: &Event) -> Option<Warning> {
    let last = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let at = last.or_else(|| event.event_time.as_ref().map(|time| time.0));
    let at = at.or_else(|| event.last_timestamp.as_ref().map(|time| time.0))?;
    let about = &event.involved_object;
    let (namespace, name) = (about.namespace.as_deref().unwrap_or_default(), about.name.as_deref().unwrap_or_default());
    Some(Warning {
        at,
        object: format!("{namespace}/{name}"),
        reason: event.reason.clone().unwrap_or_default(),
        message: event.message.clone().unwrap_or_default(),
    })
}
