//! Kubernetes events on pods: why one has no identity, when it has one after all, when a session was displaced. One for
//! each change, within a rate limit: a wave of restarts must not become a wave of writes to the API server.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    config::FIELD_MANAGER,
    metrics::Metrics,
    rate::{Bucket, Rate},
};

/// How many notices wait to be written; more are dropped and counted.
const QUEUE: usize = 1024;

/// How many pods' last notices are remembered, so that a reconnecting agent does not repeat them.
const REMEMBERED: usize = 20_000;

/// The longest note the Kubernetes API takes, bytes.
const MAX_NOTE: usize = 1024;

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
    /// The pod's agent is of a build that is supported no longer.
    Outdated(String),
}

/// Where sessions leave their notices; never blocks.
#[derive(Clone, Debug)]
pub struct EventSink {
    queue: mpsc::Sender<(PodRef, String, Notice)>,
    metrics: Arc<Metrics>,
}

impl EventSink {
    /// A sink and the receiving end for [`publish`].
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Self, Notices) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue, metrics }, Notices(receiver))
    }

    /// Leaves a notice about a session (empty: the pod's).
    pub fn notice(&self, pod: PodRef, session: &str, notice: Notice) {
        if self.queue.try_send((pod, session.to_owned(), notice)).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

/// The receiving end of an [`EventSink`].
#[derive(Debug)]
pub struct Notices(mpsc::Receiver<(PodRef, String, Notice)>);

impl Notices {
    /// The next notice.
    pub async fn next(&mut self) -> Option<(PodRef, String, Notice)> {
        self.0.recv().await
    }
}

/// Writes notices as events until every sink is gone.
pub async fn publish(client: Client, mut notices: Notices, metrics: Arc<Metrics>) {
    let recorder = Recorder::new(client, Reporter { controller: FIELD_MANAGER.to_owned(), instance: None });
    let mut filter = Filter::new();
    while let Some((pod, session, notice)) = notices.next().await {
        match filter.admit(&pod, &session, &notice, Instant::now()) {
            Verdict::Publish => {}
            Verdict::Known => continue,
            Verdict::TooMany => {
                metrics.events_dropped.inc();
                continue;
            }
        }
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

/// Ten events a second, fifty at once.
const RATE: Rate = Rate { each: Duration::from_millis(100), burst: 50 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Publish,
    Known,
    TooMany,
}

/// Which notices become events.
#[derive(Debug)]
struct Filter {
    bucket: Bucket,
    last: HashMap<(String, String), Notice>,
    /// Pods of whose outdated agent was told.
    outdated: HashSet<String>,
}

impl Filter {
    fn new() -> Self {
        Self { bucket: Bucket::new(RATE), last: HashMap::new(), outdated: HashSet::new() }
    }

    fn admit(&mut self, pod: &PodRef, session: &str, notice: &Notice, now: Instant) -> Verdict {
        let key = (pod.uid.clone(), session.to_owned());
        let last = self.last.get(&key);
        let news = match notice {
            Notice::NoIdentity(_) => last != Some(notice),
            // Only worth telling after the opposite was told.
            Notice::Identity(_) => matches!(last, Some(Notice::NoIdentity(_))),
            Notice::Displaced(_) => true,
            Notice::Outdated(_) => !self.outdated.contains(&pod.uid),
        };
        if !news {
            return Verdict::Known;
        }
        if self.bucket.take(now).is_err() {
            return Verdict::TooMany;
        }
        match notice {
            Notice::Displaced(_) => {}
            Notice::Outdated(_) => {
                if self.outdated.len() >= REMEMBERED {
                    self.outdated.clear();
                }
                self.outdated.insert(pod.uid.clone());
            }
            Notice::NoIdentity(_) | Notice::Identity(_) => {
                if self.last.len() >= REMEMBERED {
                    self.last.clear();
                }
                self.last.insert(key, notice.clone());
            }
        }
        Verdict::Publish
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, MAX_NOTE, Notice, PodRef, Verdict, event};
    use std::time::Duration;
    use tokio::time::Instant;

    fn pod(uid: &str) -> PodRef {
        PodRef { namespace: "n".to_owned(), name: "p".to_owned(), uid: uid.to_owned() }
    }

    fn none(why: &str) -> Notice {
        Notice::NoIdentity(why.to_owned())
    }

    #[test]
    fn a_reason_is_told_once_until_it_changes() {
        let (mut filter, now) = (Filter::new(), Instant::now());
        assert_eq!(filter.admit(&pod("a"), "", &none("x"), now), Verdict::Publish);
        assert_eq!(filter.admit(&pod("a"), "", &none("x"), now), Verdict::Known);
        assert_eq!(filter.admit(&pod("a"), "", &none("y"), now), Verdict::Publish);
        assert_eq!(filter.admit(&pod("b"), "", &none("y"), now), Verdict::Publish);
        assert_eq!(filter.admit(&pod("a"), "app", &none("y"), now), Verdict::Publish);
    }

    #[test]
    fn an_identity_is_news_only_after_there_was_none() {
        let (mut filter, now) = (Filter::new(), Instant::now());
        let identity = Notice::Identity("spiffe://a/b".to_owned());
        assert_eq!(filter.admit(&pod("a"), "", &identity, now), Verdict::Known);
        filter.admit(&pod("a"), "", &none("x"), now);
        assert_eq!(filter.admit(&pod("a"), "", &identity, now), Verdict::Publish);
        assert_eq!(filter.admit(&pod("a"), "", &identity, now), Verdict::Known);
    }

    // An agent that reconnects, as after every roll-out of the operator, is not news again.
    #[test]
    fn an_outdated_agent_is_told_of_once_a_pod_beside_whatever_else_is() {
        let (mut filter, now) = (Filter::new(), Instant::now());
        let outdated = |why: &str| Notice::Outdated(why.to_owned());
        assert_eq!(filter.admit(&pod("a"), "", &none("x"), now), Verdict::Publish);
        assert_eq!(filter.admit(&pod("a"), "", &outdated("old"), now), Verdict::Publish);
        assert_eq!(filter.admit(&pod("a"), "app", &outdated("old"), now), Verdict::Known);
        assert_eq!(filter.admit(&pod("a"), "", &none("x"), now), Verdict::Known);
        assert_eq!(filter.admit(&pod("b"), "", &outdated("old"), now), Verdict::Publish);
    }

    #[test]
    fn beyond_the_burst_events_come_at_the_rate() {
        let (mut filter, now) = (Filter::new(), Instant::now());
        let told = (0..100).filter(|i| filter.admit(&pod(&i.to_string()), "", &none("x"), now) == Verdict::Publish);
        assert_eq!(told.count(), 50);
        assert_eq!(filter.admit(&pod("late"), "", &none("x"), now), Verdict::TooMany);
        let later = now + Duration::from_millis(100);
        assert_eq!(filter.admit(&pod("late"), "", &none("x"), later), Verdict::Publish);
        assert_eq!(filter.admit(&pod("later"), "", &none("x"), later), Verdict::TooMany);
    }

    #[test]
    fn an_event_names_the_container_and_fits_the_api() {
        let short = event("app", &none("no grant"));
        assert_eq!(short.note.as_deref(), Some("container app: no grant"));
        let long = event("", &none(&"ä".repeat(2000)));
        assert!(long.note.is_some_and(|note| note.len() <= MAX_NOTE));
        assert_ne!(event("", &none("x")).action, event("", &none("y")).action);
    }
}
