//! Kubernetes events on pods: why one has no identity, when it has one after all, when a session was displaced, when its
//! streams come from several addresses. One for each change, within budgets of the pod and of its namespace, which are asked
//! before the queue: whoever makes many uses up their own. What is written in all has a rate: a wave of restarts must not
//! become a wave of writes to the API server.

mod budget;

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use self::budget::{Budgets, Verdict};
use crate::{
    config::FIELD_MANAGER,
    issuer::registry::Displaced,
    metrics::Metrics,
    rate::{Bucket, Rate},
};

/// How many notices of one urgency wait to be written; more are dropped and counted.
const QUEUE: usize = 1024;

/// Events of one urgency in all: ten a second, fifty at once.
const RATE: Rate = Rate { each: Duration::from_millis(100), burst: 50 };

/// The longest note the Kubernetes API takes, bytes.
const MAX_NOTE: usize = 1024;

/// How many addresses or objects a note names.
const NAMED: usize = 4;

/// Of which pod an event speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What happened to a pod's session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The pod asks, and has no identity: why, and what to do.
    NoIdentity(String),
    /// It has one after it had none.
    Identity(String),
    /// A newer stream took over a session.
    Displaced(String),
    /// Streams of the pod come from several addresses.
    SeveralAddresses(String),
    /// The session is selected by more WorkloadIdentities than it may have.
    TooManyIdentities(String),
    /// The pod's agent is of a build that is supported no longer.
    Outdated(String),
}

/// How soon a notice must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// It speaks of a token that may have been stolen.
    Suspicion,
    /// Anything else.
    Ordinary,
}

impl Notice {
    /// A stream of `session`, from `newer`, took over from an older one.
    #[must_use]
    pub fn displaced(session: &str, newer: Option<IpAddr>, older: &Displaced) -> Self {
        let from = |address: Option<IpAddr>| address.map(|address| format!(" from {address}")).unwrap_or_default();
        let (newer, earlier) = (from(newer), from(older.address));
        Self::Displaced(if older.session == session {
            format!(
                "a newer stream{newer} took over the session of one{earlier}; if this repeats, two agents serve this pod"
            )
        } else {
            let kind = |session: &str| match session {
                "" => "the pod as a whole".to_owned(),
                container => format!("container {container}"),
            };
            format!(
                "a newer stream{newer} for {} took over from one{earlier} for {}: a pod has one of the two, so one of them is not \
                 of its agent",
                kind(session),
                kind(&older.session)
            )
        })
    }

    /// Streams of a pod come from these addresses, or came within the last minute.
    #[must_use]
    pub fn several_addresses(addresses: impl Iterator<Item = IpAddr>) -> Self {
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort_unstable();
        let more = if addresses.len() > NAMED { " and others" } else { "" };
        let named: Vec<_> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
        Self::SeveralAddresses(format!(
            "streams of this pod came from {}{more} within a minute: unless the network translates addresses, its token is used \
             outside of it. Delete the pod to make the token worthless",
            named.join(", ")
        ))
    }

    /// A session gets `most` identities, and not these.
    #[must_use]
    pub fn too_many_identities(most: usize, left_out: &[String]) -> Self {
        let more = if left_out.len() > NAMED { ", and others" } else { "" };
        let named: Vec<_> = left_out.iter().take(NAMED).map(String::as_str).collect();
        Self::TooManyIdentities(format!(
            "a session has {most} identities at most, the oldest; without effect for it are the WorkloadIdentities {}{more}: \
             narrow their selectors",
            named.join(", ")
        ))
    }

    fn urgency(&self) -> Urgency {
        match self {
            Self::Displaced(_) | Self::SeveralAddresses(_) => Urgency::Suspicion,
            Self::NoIdentity(_) | Self::Identity(_) | Self::TooManyIdentities(_) | Self::Outdated(_) => {
                Urgency::Ordinary
            }
        }
    }
}

type Queued = (PodRef, String, Notice);

/// Where notices are left; never blocks.
#[derive(Clone, Debug)]
pub struct EventSink {
    suspicions: mpsc::Sender<Queued>,
    ordinary: mpsc::Sender<Queued>,
    budgets: Arc<Budgets>,
    metrics: Arc<Metrics>,
}

impl EventSink {
    /// A sink and the receiving end for [`publish`].
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Self, Notices) {
        let (suspicions, to_suspicions) = mpsc::channel(QUEUE);
        let (ordinary, to_ordinary) = mpsc::channel(QUEUE);
        let sink = Self { suspicions, ordinary, budgets: Arc::default(), metrics };
        (sink, Notices { suspicions: to_suspicions, ordinary: to_ordinary })
    }

    /// Leaves a notice about a session (empty: the pod's).
    pub fn notice(&self, pod: PodRef, session: &str, notice: Notice) {
        let queue = match notice.urgency() {
            Urgency::Suspicion => &self.suspicions,
            Urgency::Ordinary => &self.ordinary,
        };
        // A place first: what was let through counts as told.
        let Ok(place) = queue.try_reserve() else {
            self.metrics.events_dropped.inc();
            return;
        };
        match self.budgets.admit(&pod, session, &notice, Instant::now()) {
            Verdict::Publish => place.send((pod, session.to_owned(), notice)),
            Verdict::Known => {}
            Verdict::TooMany => {
                self.metrics.events_dropped.inc();
            }
        }
    }
}

/// The receiving end of an [`EventSink`].
#[derive(Debug)]
pub struct Notices {
    suspicions: mpsc::Receiver<Queued>,
    ordinary: mpsc::Receiver<Queued>,
}

impl Notices {
    /// The next notice; what speaks of a stolen token comes first.
    pub async fn next(&mut self) -> Option<Queued> {
        tokio::select! {
            biased;
            Some(queued) = self.suspicions.recv() => Some(queued),
            Some(queued) = self.ordinary.recv() => Some(queued),
            else => None,
        }
    }
}

/// Writes notices as events until every sink is gone, each urgency at its own rate.
pub async fn publish(client: Client, mut notices: Notices) {
    let recorder = Recorder::new(client, Reporter { controller: FIELD_MANAGER.to_owned(), instance: None });
    let (mut suspicions, mut ordinary) = (Bucket::new(RATE), Bucket::new(RATE));
    loop {
        let now = Instant::now();
        let (suspicions_wait, ordinary_wait) = (suspicions.has_one(now).err(), ordinary.has_one(now).err());
        let (pod, session, notice) = tokio::select! {
            biased;
            Some(queued) = notices.suspicions.recv(), if suspicions_wait.is_none() => queued,
            Some(queued) = notices.ordinary.recv(), if ordinary_wait.is_none() => queued,
            () = sleep(suspicions_wait.into_iter().chain(ordinary_wait).min().unwrap_or_default()),
                if suspicions_wait.is_some() || ordinary_wait.is_some() => continue,
            else => return,
        };
        let bucket = match notice.urgency() {
            Urgency::Suspicion => &mut suspicions,
            Urgency::Ordinary => &mut ordinary,
        };
        // There was one a moment ago.
        let _ = bucket.take(Instant::now());
        if let Err(error) = recorder.publish(&event(&session, &notice), &reference(&pod)).await {
            tracing::debug!(namespace = pod.namespace, pod = pod.name, %error, "event could not be written");
        }
    }
}

fn event(session: &str, notice: &Notice) -> Event {
    let (type_, reason, text) = match notice {
        Notice::NoIdentity(why) => (EventType::Warning, "NoIdentity", why),
        Notice::Identity(what) => (EventType::Normal, "Identity", what),
        Notice::Displaced(why) => (EventType::Warning, "SessionDisplaced", why),
        Notice::SeveralAddresses(why) => (EventType::Warning, "StreamsFromSeveralAddresses", why),
        Notice::TooManyIdentities(why) => (EventType::Warning, "TooManyIdentities", why),
        Notice::Outdated(why) => (EventType::Warning, "AgentOutdated", why),
    };
    let mut note = if session.is_empty() { text.clone() } else { format!("container {session}: {text}") };
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    // The recorder folds events of equal action and reason into one and keeps the first note; the digest keeps different
    // notes apart.
    let action = format!("Entitle-{:08x}", digest(&note));
    Event { type_, reason: reason.to_owned(), note: Some(note), action, secondary: None }
}

/// FNV-1a, 32 bits: tells notes apart, protects nothing.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn reference(pod: &PodRef) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{EventSink, MAX_NOTE, Notice, PodRef, QUEUE, event, publish};
    use crate::{canned::answering, issuer::registry::Displaced, metrics::Metrics};
    use serde_json::json;
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::Arc,
        time::Duration,
    };
    use tokio::time::Instant;

    fn pod(namespace: &str, uid: &str) -> PodRef {
        PodRef { namespace: namespace.to_owned(), name: "p".to_owned(), uid: uid.to_owned() }
    }

    fn none(why: &str) -> Notice {
        Notice::NoIdentity(why.to_owned())
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn what_speaks_of_a_stolen_token_is_written_before_all_else_and_nothing_faster_than_the_rate() {
        let (client, questions) = answering(|_| (201, json!({"metadata": {"name": "e"}, "involvedObject": {}})));
        let (sink, notices) = EventSink::new(Arc::new(Metrics::new()));
        for number in 0..100 {
            sink.notice(pod(&number.to_string(), &number.to_string()), "", none("x"));
        }
        let begin = Instant::now();
        sink.notice(pod("n", "stolen"), "", Notice::several_addresses([address(1), address(2)].into_iter()));
        drop(sink);
        publish(client, notices).await;
        let asked = questions.all();
        assert_eq!(asked.len(), 101, "what exceeds the rate waits");
        assert!(asked[0].path.contains("/namespaces/n/"), "{}", asked[0].path);
        let at_once = asked.iter().filter(|asked| asked.at == begin).count();
        assert_eq!(at_once, 51);
        assert_eq!(asked.last().map(|asked| asked.at - begin), Some(Duration::from_secs(5)));
    }

    // Nobody but itself: neither by one pod nor by many.
    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_makes_events_without_end_keeps_nobody_elses_out() {
        let metrics = Arc::new(Metrics::new());
        let (sink, mut notices) = EventSink::new(metrics.clone());
        for number in 0..10 * QUEUE {
            sink.notice(pod("hostile", &number.to_string()), "", none("x"));
            let notice = Notice::displaced("", Some(address(1)), &Displaced { session: String::new(), address: None });
            sink.notice(pod("hostile", &number.to_string()), "", notice.clone());
            sink.notice(pod("hostile", "one"), "", notice);
        }
        assert!(metrics.events_dropped.get() > 0);
        sink.notice(pod("shop", "b"), "", none("x"));
        sink.notice(pod("shop", "b"), "", Notice::several_addresses([address(1), address(2)].into_iter()));
        drop(sink);
        let mut told = Vec::new();
        while let Some((pod, _, _)) = notices.next().await {
            told.push(pod.namespace);
        }
        assert_eq!(told.iter().filter(|namespace| *namespace == "shop").count(), 2);
        assert!(told.len() < QUEUE / 4, "{}", told.len());
    }

    #[test]
    fn an_event_names_the_container_and_fits_the_api() {
        let short = event("app", &none("no grant"));
        assert_eq!(short.note.as_deref(), Some("container app: no grant"));
        let long = event("", &none(&"ä".repeat(2000)));
        assert!(long.note.is_some_and(|note| note.len() <= MAX_NOTE));
        assert_ne!(event("", &none("x")).action, event("", &none("y")).action);
    }

    #[test]
    fn what_displaces_says_from_where_and_whether_it_is_of_another_kind() {
        let told = |session: &str, older: &str| {
            let older = Displaced { session: older.to_owned(), address: Some(address(1)) };
            let Notice::Displaced(text) = Notice::displaced(session, Some(address(2)), &older) else { panic!() };
            text
        };
        let same = told("app", "app");
        assert!(same.contains("a newer stream from 10.0.0.2") && same.contains("one from 10.0.0.1;"), "{same}");
        let other = told("app", "");
        assert!(other.contains("for container app took over") && other.contains("the pod as a whole"), "{other}");
    }

    #[test]
    fn of_many_addresses_a_few_are_named() {
        let Notice::SeveralAddresses(text) = Notice::several_addresses((1..=9).rev().map(address)) else { panic!() };
        assert!(text.contains("10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4 and others"), "{text}");
    }
}
