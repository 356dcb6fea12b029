//! Events on pods: why one has no identity, when it has one after all, when a session was superseded, when its streams come from
//! several addresses. One for each change, within budgets of the pod and of its namespace that are checked before the queue, so
//! that a pod that causes many uses up its own budget. All events together have a rate: a wave of restarts must not become a
//! wave of writes to the API server.

mod budget;

use countersign_reasons::Reason;
use std::{net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use self::budget::{Budgets, Verdict};
use crate::{metrics::IssuerMetrics, registry::Superseded};
use countersign_runtime::rate::{Bucket, Rate};

/// How many notices of one urgency wait to be written; more are dropped and counted.
const QUEUE: usize = 1024;

/// Events of one urgency in all: ten a second, fifty at once.
const RATE: Rate = Rate { each: Duration::from_millis(100), burst: 50 };

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
pub enum PodEvent {
    /// The pod asks, and has no identity: why, and what to do.
    NoIdentity(String),
    /// It has one after it had none.
    Identity(String),
    /// A newer stream took over a session.
    Superseded(String),
    /// Streams of the pod come from several addresses.
    SeveralAddresses(String),
    /// The session is selected by more WorkloadIdentities than it may have.
    TooManyIdentities(String),
    /// The pod's agent is of a build that is supported no longer.
    Outdated(String),
    /// The pod's agent has not acknowledged the newest bundle of a trust domain.
    BundleNotAcknowledged(String),
    /// Its certificates were issued anew as somebody had asked.
    Renewed(String),
}

/// How soon a notice must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// It speaks of a token that may have been stolen.
    Suspicion,
    /// Anything else.
    Ordinary,
}

impl PodEvent {
    /// A stream of `session`, from `newer`, took over from an older one.
    #[must_use]
    pub fn superseded(session: &str, newer: Option<IpAddr>, older: &Superseded) -> Self {
        let from = |address: Option<IpAddr>| address.map(|address| format!(" from {address}")).unwrap_or_default();
        let (newer, earlier) = (from(newer), from(older.address));
        Self::Superseded(if older.session == session {
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

    /// The agent lacks the bundle of `trust_domain` with this sequence.
    #[must_use]
    pub fn bundle_not_acknowledged(trust_domain: &str, sequence: u64) -> Self {
        Self::BundleNotAcknowledged(format!(
            "the agent has not acknowledged the bundle of trust domain {trust_domain} with sequence {sequence}: see whether the pod \
             reaches the operator. Authorities switch without it at the latest time in the TrustDomain's status"
        ))
    }

    /// Every certificate was issued anew since the annotation that asks for it has this time, in unix milliseconds.
    #[must_use]
    pub fn renewed(renewal: u64) -> Self {
        let asked = i64::try_from(renewal).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
        let asked = asked.map_or_else(|| renewal.to_string(), |at| at.to_string());
        Self::Renewed(format!("every certificate was issued anew, as asked at {asked}"))
    }

    /// CamelCase, of a closed set.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoIdentity(_) => Reason::NoIdentity,
            Self::Identity(_) => Reason::Identity,
            Self::Superseded(_) => Reason::SessionDisplaced,
            Self::SeveralAddresses(_) => Reason::StreamsFromSeveralAddresses,
            Self::TooManyIdentities(_) => Reason::TooManyIdentities,
            Self::Outdated(_) => Reason::AgentOutdated,
            Self::BundleNotAcknowledged(_) => Reason::BundleNotAcknowledged,
            Self::Renewed(_) => Reason::Renewed,
        }
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::Identity(_) | Self::Renewed(_))
    }

    /// What happened, for a person.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::NoIdentity(text)
            | Self::Identity(text)
            | Self::Superseded(text)
            | Self::SeveralAddresses(text)
            | Self::TooManyIdentities(text)
            | Self::Outdated(text)
            | Self::BundleNotAcknowledged(text)
            | Self::Renewed(text) => text,
        }
    }

    fn urgency(&self) -> Urgency {
        match self {
            Self::Superseded(_) | Self::SeveralAddresses(_) => Urgency::Suspicion,
            Self::NoIdentity(_)
            | Self::Identity(_)
            | Self::TooManyIdentities(_)
            | Self::Outdated(_)
            | Self::BundleNotAcknowledged(_)
            | Self::Renewed(_) => Urgency::Ordinary,
        }
    }
}

/// An event, its pod, and the session it is about (empty: the pod as a whole).
pub type Queued = (PodRef, String, PodEvent);

/// The sending end of the queue of events; never blocks.
#[derive(Clone, Debug)]
pub struct EventSink {
    suspicions: mpsc::Sender<Queued>,
    ordinary: mpsc::Sender<Queued>,
    budgets: Arc<Budgets>,
    metrics: Arc<IssuerMetrics>,
}

impl EventSink {
    /// A sink and its receiving end.
    #[must_use]
    pub fn new(metrics: Arc<IssuerMetrics>) -> (Self, PodEvents) {
        let (suspicions, to_suspicions) = mpsc::channel(QUEUE);
        let (ordinary, to_ordinary) = mpsc::channel(QUEUE);
        let sink = Self { suspicions, ordinary, budgets: Arc::default(), metrics };
        (sink, PodEvents { suspicions: to_suspicions, ordinary: to_ordinary, rates: [Bucket::new(RATE); 2] })
    }

    /// Queues an event about a session (empty: about the pod as a whole); dropped when the queue is full or the budget is spent.
    pub fn send(&self, pod: PodRef, session: &str, notice: PodEvent) {
        let queue = match notice.urgency() {
            Urgency::Suspicion => &self.suspicions,
            Urgency::Ordinary => &self.ordinary,
        };
        // The place is reserved first: an admitted event counts against the budget, so it must fit into the queue.
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
pub struct PodEvents {
    suspicions: mpsc::Receiver<Queued>,
    ordinary: mpsc::Receiver<Queued>,
    rates: [Bucket; 2],
}

impl PodEvents {
    /// The next event, at once; one about a stolen token comes first.
    pub async fn next(&mut self) -> Option<Queued> {
        tokio::select! {
            biased;
            Some(queued) = self.suspicions.recv() => Some(queued),
            Some(queued) = self.ordinary.recv() => Some(queued),
            else => None,
        }
    }

    /// As [`Self::next`], and no sooner than the rate of its urgency allows.
    pub async fn next_within_rate(&mut self) -> Option<Queued> {
        let [suspicions, ordinary] = &mut self.rates;
        loop {
            let now = Instant::now();
            let (suspicions_wait, ordinary_wait) = (suspicions.has_one(now).err(), ordinary.has_one(now).err());
            let (queued, rate) = tokio::select! {
                biased;
                Some(queued) = self.suspicions.recv(), if suspicions_wait.is_none() => (queued, suspicions),
                Some(queued) = self.ordinary.recv(), if ordinary_wait.is_none() => (queued, ordinary),
                () = sleep(suspicions_wait.into_iter().chain(ordinary_wait).min().unwrap_or_default()),
                    if suspicions_wait.is_some() || ordinary_wait.is_some() => continue,
                else => return None,
            };
            // There was one a moment ago.
            let _ = rate.take(Instant::now());
            return Some(queued);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EventSink, PodEvent, PodRef, QUEUE};
    use crate::{metrics::IssuerMetrics, registry::Superseded};
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::Arc,
    };

    fn pod(namespace: &str, uid: &str) -> PodRef {
        PodRef { namespace: namespace.to_owned(), name: "p".to_owned(), uid: uid.to_owned() }
    }

    fn none(why: &str) -> PodEvent {
        PodEvent::NoIdentity(why.to_owned())
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    // Nobody but itself: neither by one pod nor by many.
    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_makes_events_without_end_keeps_nobody_elses_out() {
        let metrics = Arc::new(IssuerMetrics::default());
        let (sink, mut notices) = EventSink::new(metrics.clone());
        for number in 0..10 * QUEUE {
            sink.send(pod("hostile", &number.to_string()), "", none("x"));
            let notice =
                PodEvent::superseded("", Some(address(1)), &Superseded { session: String::new(), address: None });
            sink.send(pod("hostile", &number.to_string()), "", notice.clone());
            sink.send(pod("hostile", "one"), "", notice);
        }
        assert!(metrics.events_dropped.get() > 0);
        sink.send(pod("shop", "b"), "", none("x"));
        sink.send(pod("shop", "b"), "", PodEvent::several_addresses([address(1), address(2)].into_iter()));
        drop(sink);
        let mut sent_to = Vec::new();
        while let Some((pod, _, _)) = notices.next().await {
            sent_to.push(pod.namespace);
        }
        assert_eq!(sent_to.iter().filter(|namespace| *namespace == "shop").count(), 2);
        assert!(sent_to.len() < QUEUE / 4, "{}", sent_to.len());
    }

    #[test]
    fn what_displaces_says_from_where_and_whether_it_is_of_another_kind() {
        let message = |session: &str, older: &str| {
            let older = Superseded { session: older.to_owned(), address: Some(address(1)) };
            let PodEvent::Superseded(text) = PodEvent::superseded(session, Some(address(2)), &older) else { panic!() };
            text
        };
        let same = message("app", "app");
        assert!(same.contains("a newer stream from 10.0.0.2") && same.contains("one from 10.0.0.1;"), "{same}");
        let other = message("app", "");
        assert!(other.contains("for container app took over") && other.contains("the pod as a whole"), "{other}");
    }

    #[test]
    fn of_many_addresses_a_few_are_named() {
        let PodEvent::SeveralAddresses(text) = PodEvent::several_addresses((1..=9).rev().map(address)) else {
            panic!()
        };
        assert!(text.contains("10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4 and others"), "{text}");
    }
}
