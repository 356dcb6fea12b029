//! Compares what a pod is entitled to with what status, events and its agent's container say. Pure.

use std::collections::BTreeSet;

use countersign_contract::{metadata::annotation, pod::AGENT};
use countersign_crds::{WorkloadIdentity, condition::BUNDLE_ACKNOWLEDGED};
use countersign_index::Entitlement;
use countersign_reasons::Reason;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt as _;

use super::report::{Answer, Known, Report, Row};
use crate::{
    finding::Finding,
    objects::{Objects, condition_of, has_kept_counts, sessions, uid},
    reading::Right,
    times::{moment, span},
};

/// What was read.
#[derive(Debug)]
pub(super) struct Observed {
    /// With the pod, and its namespace if that could be read.
    pub(super) objects: Objects,
    /// On the pod.
    pub(super) events: Vec<Event>,
    /// Whether everything was read that decides who is entitled.
    pub(super) is_decidable: bool,
    pub(super) denied: Vec<Right>,
    pub(super) now: Timestamp,
}

/// What speaks of the whole pod.
struct Agent<'a> {
    is_injected: bool,
    status: Option<&'a ContainerStatus>,
    /// The event that says last whether it has an identity.
    last_event: Option<&'a Event>,
}

pub(super) fn report(observed: &Observed) -> Report {
    let mut findings: Vec<Finding> = observed.denied.iter().map(|denied| Finding::denied("cluster", denied)).collect();
    let Some(pod) = observed.objects.pods.first() else {
        return Report { pod: String::new(), rows: Vec::new(), findings };
    };
    let agent = Agent::of(pod, &observed.events);
    let rows = rows(observed, pod, &agent);
    findings.extend(not_acknowledged(&observed.objects, pod, &rows));
    findings.extend(observed.events.iter().filter_map(warning));
    findings.extend(clock(&observed.objects, pod));
    if rows.iter().any(|row| row.held.answer == Answer::Unknown) {
        let message = "the status does not say of each identity whether the pod has it: agents are asked every 30 s";
        findings.push(Finding::skipped("held", message));
    }
    Report { pod: name(pod), rows, findings }
}

fn rows(observed: &Observed, pod: &Pod, agent: &Agent<'_>) -> Vec<Row> {
    let index = observed.is_decidable.then(|| observed.objects.index());
    let mut rows = Vec::new();
    for session in sessions(pod) {
        let Some(index) = &index else {
            rows.push(Row::without_id(
                &session,
                Known::unknown("what decides it may not be read"),
                agent.held_by_nobody(),
            ));
            continue;
        };
        match index.entitlement(&uid(pod), &session) {
            Entitlement::Entitled(entitled) => {
                for one in entitled {
                    let full_name = one.identity.full_name();
                    let object = observed.objects.identities.iter().find(|object| {
                        full_name == format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
                    });
                    let delivery = Delivery::of(object, pod, observed.now);
                    let issued = issued(object, agent, &delivery);
                    rows.push(Row {
                        session: session.clone(),
                        id: Some(one.id.to_string()),
                        identity: Some(full_name.clone()),
                        trust_domain: Some(one.id.trust_domain().to_string()),
                        entitled: Known::yes(described(&full_name, &one)),
                        held: agent.held(&delivery),
                        issued,
                    });
                }
            }
            Entitlement::None(absence) => {
                let entitled = Known::no(format!("{} ({} {})", absence.message, absence.reason.code(), absence.reason));
                rows.push(Row::without_id(&session, entitled, agent.held_by_nobody()));
            }
            Entitlement::Gone => {
                let entitled =
                    Known::no(format!("the pod has ended ({} {})", Reason::PodEnded.code(), Reason::PodEnded));
                rows.push(Row::without_id(&session, entitled, Known::no("the pod has ended")));
            }
        }
    }
    rows
}

/// What its credentials are to say.
fn described(full_name: &str, one: &countersign_core::entitlement::Entitled) -> String {
    let life =
        |life: std::time::Duration| span(jiff::SignedDuration::try_from(life).unwrap_or(jiff::SignedDuration::MAX));
    let mut lines = vec![format!("by {full_name}"), format!("X.509 for {}", life(one.x509_ttl()))];
    if !one.dns_names.is_empty() {
        lines.push(format!("DNS {}", one.dns_names.join(", ")));
    }
    let audiences: Vec<String> = one.identity.jwt.audiences.iter().map(ToString::to_string).collect();
    if !audiences.is_empty() {
        lines.push(format!("JWT for {}, for {}", life(one.jwt_ttl()), audiences.join(", ")));
    }
    if let Some(wit) = one.wit_ttl() {
        lines.push(format!("WIT for {}", life(wit)));
    }
    let foreign: Vec<&str> = one.federates_with().map(|(name, _)| name.as_str()).collect();
    if !foreign.is_empty() {
        lines.push(format!("trusts {}", foreign.join(", ")));
    }
    lines.join("; ")
}

/// Whether an identity has arrived at a pod, by the receipt of its agent.
enum Delivery {
    Held,
    /// Why not.
    Problem(String),
    /// Its agent has no stream: it is not known what it has.
    NotConnected(String),
    /// The receipts say nothing of this pod.
    Unknown,
}

impl Delivery {
    /// The status names pods that lack something, and counts the others: if both together are all, any other has it. It is of no use
    /// when no operator has written it for so long that what it speaks of may have expired.
    fn of(object: Option<&WorkloadIdentity>, pod: &Pod, now: Timestamp) -> Self {
        let Some(status) = object.and_then(|object| object.status.as_ref()) else { return Self::Unknown };
        let is_old = status.next_expiry.as_ref().is_some_and(|expiry| expiry.0 <= now);
        let (Some(pods), false) = (&status.pods, has_kept_counts(status) || is_old) else { return Self::Unknown };
        let clock = Reason::AgentClockDiffers.name();
        let lacking = status.undelivered.iter().filter(|one| one.reason != clock);
        if let Some(one) = lacking.clone().find(|one| one.pod == pod.name_any()) {
            let message = Reason::without_code(&one.message).to_owned();
            let is_connected = one.reason != Reason::AgentNotConnected.name();
            return if is_connected { Self::Problem(message) } else { Self::NotConnected(message) };
        }
        let named: BTreeSet<&str> = lacking.map(|one| one.pod.as_str()).collect();
        let named = i64::try_from(named.len()).unwrap_or(i64::MAX);
        let able = pods.matched - pods.not_injected;
        match pods.held {
            Some(held) if held.saturating_add(named) >= able => Self::Held,
            _ => Self::Unknown,
        }
    }
}

/// What the operator's statistics say: they count pods, so that of some only it is not known which.
fn issued(object: Option<&WorkloadIdentity>, agent: &Agent<'_>, delivery: &Delivery) -> Known {
    if !agent.is_injected {
        return Known::no("the pod has no agent that could ask");
    }
    if matches!(delivery, Delivery::Held) {
        return Known::yes("its agent has what was issued to it last");
    }
    let Some(status) = object.and_then(|object| object.status.as_ref()) else {
        return Known::unknown("the operator has not reported on it yet");
    };
    let (Some(pods), false) = (&status.pods, has_kept_counts(status)) else {
        return Known::unknown("a replica of the operator cannot report its streams");
    };
    let Some(served) = pods.served else { return Known::unknown("the operator has not counted its streams yet") };
    let able = pods.matched - pods.not_injected;
    match served {
        0 => Known::no(format!("no pod has it, of those with an agent: {able}")),
        served if served >= able => Known::yes(format!("every pod with an agent has it: {able}")),
        served => {
            Known::unknown(format!("{served} of {able} pods with an agent have it; the status does not say which"))
        }
    }
}

impl<'a> Agent<'a> {
    fn of(pod: &'a Pod, events: &'a [Event]) -> Self {
        let statuses = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
        let about_identity = |event: &&Event| matches!(event.reason.as_deref(), Some(reason) if reason == Reason::NoIdentity.name() || reason == Reason::Identity.name());
        Self {
            is_injected: pod.annotations().contains_key(annotation::INJECTED),
            status: statuses.into_iter().find(|status| status.name == AGENT),
            last_event: events.iter().filter(about_identity).max_by_key(|event| at(event)),
        }
    }

    /// Since when its container has started, which it does once every session has an identity.
    fn ready_since(&self) -> Option<Option<Timestamp>> {
        let status = self.status.filter(|status| status.started == Some(true))?;
        let running = status.state.as_ref().and_then(|state| state.running.as_ref());
        Some(running.and_then(|running| running.started_at.as_ref()).map(|at| at.0))
    }

    fn held(&self, delivery: &Delivery) -> Known {
        if !self.is_injected {
            return Known::no("the pod has no agent");
        }
        if self.ready_since().is_none() {
            return Known::no("the agent waits for its first credentials");
        }
        if let Some(event) = self.last_event.filter(|event| event.reason.as_deref() == Some(Reason::NoIdentity.name()))
        {
            let message = event.message.as_deref().unwrap_or_default();
            return Known::unknown(format!("at {} it had none: {message}", at(event).map(moment).unwrap_or_default()));
        }
        match delivery {
            Delivery::Held => Known::yes("it is on the socket and in the files, as the agent's receipt says"),
            Delivery::Problem(message) => Known::no(message),
            Delivery::NotConnected(message) => {
                Known::unknown(format!("{message}; what it was issued before lasts until it expires"))
            }
            Delivery::Unknown => Known::unknown("its agent has had credentials since it started"),
        }
    }

    /// Of a session without an entitlement.
    fn held_by_nobody(&self) -> Known {
        if !self.is_injected || self.ready_since().is_none() {
            return Known::no("it has never had credentials");
        }
        Known::unknown("credentials that were issued before last until they expire")
    }
}

/// The agent has not got the newest bundle: named by the TrustDomain's condition.
fn not_acknowledged(objects: &Objects, pod: &Pod, rows: &[Row]) -> Vec<Finding> {
    let name = name(pod);
    let is_own = |domain: &str| rows.iter().any(|row| row.trust_domain.as_deref() == Some(domain));
    let mut findings = Vec::new();
    for domain in objects.domains.iter().filter(|domain| is_own(domain.trust_domain_name())) {
        let conditions = domain.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let Some(found) = condition_of(conditions, BUNDLE_ACKNOWLEDGED).filter(|one| one.status == "False") else {
            continue;
        };
        let names_it = found.message.split([' ', ',', ';']).any(|word| word == name);
        if names_it {
            let message = format!("its agent has not acknowledged the newest bundle of {}", domain.trust_domain_name());
            findings.push(Finding::warning("bundle", Reason::BundleNotAcknowledged, message).with_mend(format!(
                "see whether the pod reaches the operator:\nkubectl logs -n {} {} -c {AGENT}",
                pod.namespace().unwrap_or_default(),
                pod.name_any()
            )));
        }
    }
    findings
}

/// What a status says of the clock of the pod's node.
fn clock(objects: &Objects, pod: &Pod) -> Option<Finding> {
    let of_namespace = objects.identities.iter().filter(|object| object.namespace() == pod.namespace());
    let statuses = of_namespace.filter_map(|object| object.status.as_ref());
    let mut entries = statuses.flat_map(|status| &status.undelivered);
    let reason = Reason::AgentClockDiffers;
    let found = entries.find(|one| one.pod == pod.name_any() && one.reason == reason.name())?;
    Some(
        Finding::warning("clock", reason, Reason::without_code(&found.message))
            .with_mend("set the clock of the pod's node"),
    )
}

/// An event that says that something is wrong with the pod's identity.
fn warning(event: &Event) -> Option<Finding> {
    let reason: Reason = event.reason.as_deref()?.parse().ok()?;
    let is_warning = event.type_.as_deref() == Some("Warning") && reason != Reason::NoIdentity;
    let when = at(event).map(|at| format!(", {}", moment(at))).unwrap_or_default();
    is_warning
        .then(|| Finding::warning("event", reason, format!("{}{when}", event.message.as_deref().unwrap_or_default())))
}

/// When it happened last.
fn at(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|at| at.0);
    let last = event.last_timestamp.as_ref().map(|at| at.0);
    series.or(last).or_else(|| event.event_time.as_ref().map(|at| at.0))
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}
