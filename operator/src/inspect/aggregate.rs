//! The leader's round: asks every replica, adds up, publishes for the status. Others ask nobody.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use countersign_proto::inspect::v1::ReportResponse;
use futures::future::join_all;
use kube::Client;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{
    client,
    credential::Credential,
    elsewhere::seen_apart,
    identity_counts::{Answer, ReplicaReports, Totals},
    receipts::is_entitled,
    replicas::{self, Replica},
    report::Source,
};
use countersign_index::SharedIndex;
use countersign_issuer::events::{EventSink, PodEvent, PodRef};
use countersign_issuer::published::Published;
use countersign_runtime::leader::{Leadership, gained};

/// The time between rounds.
pub const EACH: Duration = Duration::from_secs(30);

/// How long after a change of what is published it is asked for besides.
pub const AFTER_CHANGE: Duration = Duration::from_secs(2);

/// What was counted last; none while this replica does not lead.
pub type Counted = watch::Receiver<Option<Arc<Totals>>>;

/// What the rounds are made with.
#[derive(Clone)]
pub struct Context {
    /// For the list of replicas.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// The port of the others' Inspect API.
    pub port: u16,
    /// Our own report.
    pub source: Source,
    /// What we show to the others.
    pub credential: Arc<Credential>,
    /// For the names of pods.
    pub index: SharedIndex,
    /// Where events go.
    pub events: EventSink,
    /// Whether it is our part.
    pub leadership: Leadership,
}

/// Makes rounds whenever this replica leads, for as long as the process lives.
pub async fn run(context: Context, counted: watch::Sender<Option<Arc<Totals>>>) {
    let mut leads = context.leadership.subscribe();
    leads.mark_changed();
    loop {
        gained(&mut leads).await;
        tokio::select! {
            () = rounds(&context, &counted) => {}
            _ = leads.wait_for(|leads| !leads) => {}
        }
        counted.send_replace(None);
    }
}

async fn rounds(context: &Context, counted: &watch::Sender<Option<Arc<Totals>>>) {
    let (mut reports, mut lagged, mut lost) = (ReplicaReports::default(), HashSet::new(), HashMap::new());
    let mut published = context.source.published.clone();
    published.mark_unchanged();
    let mut tick = tokio::time::interval(EACH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            // Soon after a bundle changed its agents have acknowledged it.
            () = changed(&mut published) => tokio::time::sleep(AFTER_CHANGE).await,
        }
        let listed = replicas::others(&context.client, &context.namespace, &context.source.replica, context.port).await;
        match listed {
            Ok(others) => {
                let answers = answers(context, others).await;
                tell_of_addresses(context, &answers);
                let mut totals = reports.enter(answers);
                if let Some(connected) = &totals.connected {
                    totals.unconnected = Some(unconnected(context, connected, &mut lost));
                }
                lagged = tell_of_laggards(context, &totals, &lagged);
                counted.send_replace(Some(Arc::new(totals)));
            }
            Err(error) => tracing::warn!(%error, "the operator's replicas cannot be listed; they are asked later"),
        }
    }
}

/// The pods with an agent and without a stream, in this round and in the one before: one that is new is about to have a stream.
fn unconnected(
    context: &Context,
    connected: &HashSet<String>,
    before: &mut HashMap<String, String>,
) -> HashMap<String, String> {
    let now = context.index.read(|index| index.all_with_agent(|uid| !connected.contains(uid)));
    let before = std::mem::replace(before, now.clone());
    now.into_iter().filter(|(uid, _)| before.contains_key(uid)).collect()
}

/// Has an event on pods that have not acknowledged a bundle for two rounds; returns those of this round, by trust domain and uid.
fn tell_of_laggards(context: &Context, totals: &Totals, before: &HashSet<Laggard>) -> HashSet<Laggard> {
    let now = context.source.clock.now();
    let is_alive = is_entitled(&context.index, now);
    let mut lagging = HashSet::new();
    for (trust_domain, receipts) in totals.receipts.iter().flatten() {
        let Some(sequence) = receipts.published_everywhere() else { continue };
        for uid in receipts.summary(sequence, &is_alive).laggards {
            let laggard = Laggard { trust_domain: trust_domain.clone(), sequence, uid };
            if before.contains(&laggard)
                && let Some(pod) = context.index.read(|index| index.pod(&laggard.uid))
            {
                let (namespace, name, uid) = (pod.facts.namespace, pod.facts.name, laggard.uid.clone());
                let event = PodEvent::bundle_not_acknowledged(trust_domain, sequence);
                context.events.send(PodRef { namespace, name, uid }, "", event);
            }
            lagging.insert(laggard);
        }
    }
    lagging
}

/// A pod that has not acknowledged a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Laggard {
    trust_domain: String,
    sequence: u64,
    uid: String,
}

/// Resolves when something else is published.
async fn changed(published: &mut watch::Receiver<Arc<Published>>) {
    match published.changed().await {
        Ok(()) => published.mark_unchanged(),
        // Nothing will be published any more.
        Err(_) => std::future::pending().await,
    }
}

/// Has an event on each pod whose streams come from different addresses at different replicas.
fn tell_of_addresses(context: &Context, answers: &[Answer]) {
    for (uid, addresses) in seen_apart(answers.iter().filter_map(|answer| answer.report.as_ref())) {
        let Some(pod) = context.index.read(|index| index.pod(&uid)) else { continue };
        let facts = pod.facts;
        let pod = PodRef { namespace: facts.namespace, name: facts.name, uid };
        context.events.send(pod, "", PodEvent::several_addresses(addresses.into_iter()));
    }
}

async fn answers(context: &Context, others: Vec<Replica>) -> Vec<Answer> {
    let asked = join_all(others.into_iter().map(|replica| answer(replica, &context.credential))).await;
    let mut answers: Vec<_> = asked.into_iter().flatten().collect();
    let source = context.source.clone();
    let own = tokio::task::spawn_blocking(move || source.report()).await.ok();
    answers.push(Answer { replica: context.source.replica.clone(), report: own });
    answers
}

/// `None`: it is leaving and need not answer, for its streams move to others.
async fn answer(replica: Replica, credential: &Credential) -> Option<Answer> {
    let report: Option<ReportResponse> = match client::ask(replica.address, credential).await {
        Ok(report) => Some(report),
        Err(_) if replica.leaving => return None,
        Err(error) => {
            tracing::warn!(replica = replica.name, %error, "a replica cannot be asked for its streams");
            None
        }
    };
    Some(Answer { replica: replica.name, report })
}

#[cfg(test)]
mod tests {
    use super::{
        Answer, Context, Counted, HashMap, HashSet, PodEvent, ReplicaReports, ReportResponse, SharedIndex, run,
        tell_of_addresses, tell_of_laggards, unconnected,
    };
    use crate::{
        fake_api_server::{Questions, answering, leading, refusal},
        inspect::{credential::Credential, identity_counts::Coverage, report::Source},
    };
    use countersign_index::PodRecord;
    use countersign_issuer::events::{EventSink, PodEvents};
    use countersign_issuer::{
        agent_versions::SupportPolicy,
        registry::{Registry, StreamLimits},
    };
    use countersign_proto::inspect::v1::{DomainReport, PodAddresses, SessionReport};
    use countersign_runtime::clock::Clock;
    use countersign_runtime::leader::Leadership;
    use countersign_runtime::readiness::Readiness;
    use jiff::Timestamp;
    use kube::Client;
    use rustls::pki_types::ServerName;
    use serde_json::{Value, json};
    use std::{sync::Arc, time::Duration};
    use tokio::{sync::watch, time::Instant};

    fn context(client: Client, leadership: Leadership) -> (Context, PodEvents) {
        let source = Source {
            replica: "operator-a".to_owned(),
            registry: Registry::new(StreamLimits::default()),
            readiness: Readiness::default(),
            support: SupportPolicy::default(),
            index: SharedIndex::default(),
            published: watch::channel(Arc::default()).1,
            clock: Clock::system(),
        };
        let (events, notices) = EventSink::new(Arc::default());
        let context = Context {
            client,
            namespace: "countersign-system".to_owned(),
            port: 8444,
            source,
            credential: Credential::new(ServerName::try_from("replica").unwrap()),
            index: SharedIndex::default(),
            events,
            leadership,
        };
        (context, notices)
    }

    /// Pod `shop/cart-0` of uid `p1`.
    fn add_pod(context: &Context) {
        let mut pod = PodRecord::default();
        (pod.facts.namespace, pod.facts.name, pod.facts.uid) =
            ("shop".to_owned(), "cart-0".to_owned(), "p1".to_owned());
        context.index.update(|index| index.apply_pod(pod));
    }

    #[tokio::test]
    async fn a_pod_with_streams_at_two_replicas_from_two_addresses_gets_an_event() {
        let clock = Clock::system();
        let (context, mut notices) = context(answering(|_| nobody_else()).0, leading(&clock));
        add_pod(&context);
        let answer = |replica: &str, pods: &[(&str, u8)]| {
            let pods = pods.iter().map(|(uid, last)| PodAddresses {
                uid: (*uid).to_owned(),
                addresses: vec![vec![10, 0, 0, *last]],
                open: true,
            });
            let report = ReportResponse { pods: pods.collect(), ..ReportResponse::default() };
            Answer { replica: replica.to_owned(), report: Some(report) }
        };
        let silent = Answer { replica: "c".to_owned(), report: None };
        let answers = [answer("a", &[("p1", 1), ("unknown", 1)]), answer("b", &[("p1", 2), ("unknown", 2)]), silent];
        tell_of_addresses(&context, &answers);
        let (pod, _, notice) = notices.next().await.unwrap();
        assert_eq!((pod.name.as_str(), pod.uid.as_str()), ("cart-0", "p1"));
        assert!(
            matches!(&notice, PodEvent::SeveralAddresses(text) if text.contains("10.0.0.1, 10.0.0.2")),
            "{notice:?}"
        );
        tell_of_addresses(&context, &[answer("a", &[("p1", 1)]), answer("b", &[("p1", 1)])]);
        drop(context);
        assert!(notices.next().await.is_none(), "one address is that of the pod");
    }

    #[tokio::test]
    async fn a_pod_that_lags_behind_for_two_rounds_gets_an_event() {
        let clock = Clock::system();
        let (context, mut notices) = context(answering(|_| nobody_else()).0, leading(&clock));
        add_pod(&context);
        let session = |sequence| SessionReport { pod_uid: "p1".to_owned(), sequence, ..SessionReport::default() };
        let totals = |sequence| {
            let trust_domain = "example.org".to_owned();
            let domains = vec![DomainReport { trust_domain, published_sequence: 7, sessions: vec![session(sequence)] }];
            let report = ReportResponse { domains, tells_domains: true, ..ReportResponse::default() };
            ReplicaReports::default().enter(vec![Answer { replica: "a".to_owned(), report: Some(report) }])
        };
        let first = tell_of_laggards(&context, &totals(6), &HashSet::new());
        assert_eq!(first.len(), 1);
        assert!(tell_of_laggards(&context, &totals(7), &first).is_empty(), "it has caught up");
        tell_of_laggards(&context, &totals(6), &first);
        drop(context);
        let (pod, _, notice) = notices.next().await.unwrap();
        assert_eq!((pod.name.as_str(), notice.reason().name()), ("cart-0", "BundleNotAcknowledged"));
        assert!(notice.text().contains("example.org with sequence 7"), "{notice:?}");
        assert!(notices.next().await.is_none(), "one round may be too early");
    }

    #[tokio::test]
    async fn a_pod_is_without_a_stream_once_that_is_so_for_two_rounds() {
        let clock = Clock::system();
        let (context, _) = context(answering(|_| nobody_else()).0, leading(&clock));
        let mut pod = PodRecord { injected: true, ..PodRecord::default() };
        (pod.facts.namespace, pod.facts.name, pod.facts.uid) =
            ("shop".to_owned(), "cart-0".to_owned(), "p1".to_owned());
        context.index.update(|index| index.apply_pod(pod.clone()));
        let mut other = PodRecord { injected: false, ..pod };
        (other.facts.name, other.facts.uid) = ("cart-1".to_owned(), "p2".to_owned());
        context.index.update(|index| index.apply_pod(other));
        let (nobody, connected) = (HashSet::new(), HashSet::from(["p1".to_owned()]));
        let lost = HashMap::from([("p1".to_owned(), "shop".to_owned())]);
        let mut before = HashMap::new();
        let mut round = |connected| unconnected(&context, connected, &mut before);
        assert!(round(&nobody).is_empty(), "it may be new");
        assert_eq!(round(&nobody), lost);
        assert!(round(&connected).is_empty());
        assert!(round(&nobody).is_empty());
        assert_eq!(round(&nobody), lost);
    }

    /// The rounds of a replica that leads, whose API server lists the others so.
    fn rounds(listed: impl Fn() -> (u16, Value) + Send + Sync + 'static) -> (Leadership, Counted, Questions) {
        let begin = Instant::now();
        let clock = Clock::new(move || Timestamp::UNIX_EPOCH + begin.elapsed());
        let (client, questions) = answering(move |_| listed());
        let leadership = leading(&clock);
        let (context, _) = context(client, leadership.clone());
        let (counts, counted) = watch::channel(None);
        tokio::spawn(run(context, counts));
        (leadership, counted, questions)
    }

    fn nobody_else() -> (u16, Value) {
        (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []}))
    }

    /// Whether something is counted, once that was said anew; within an hour of tokio's.
    async fn next(counted: &mut Counted) -> bool {
        tokio::time::timeout(Duration::from_secs(3600), counted.changed()).await.expect("it is said").unwrap();
        counted.borrow_and_update().is_some()
    }

    fn seconds(questions: &Questions, begin: Instant) -> Vec<u64> {
        questions.all().iter().map(|asked| asked.at.duration_since(begin).as_secs()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_leader_counts_at_once_and_then_every_thirty_seconds() {
        let begin = Instant::now();
        let (_leadership, mut counted, questions) = rounds(nobody_else);
        for _ in 0..4 {
            counted.changed().await.unwrap();
            assert_eq!(counted.borrow_and_update().as_ref().unwrap().sight, Coverage::Whole);
        }
        assert_eq!(seconds(&questions, begin), [0, 30, 60, 90]);
    }

    #[tokio::test(start_paused = true)]
    async fn soon_after_a_bundle_changed_the_leader_counts_besides() {
        let begin = Instant::now();
        let clock = Clock::new(move || Timestamp::UNIX_EPOCH + begin.elapsed());
        let (client, questions) = answering(|_| nobody_else());
        let (mut context, _) = context(client, leading(&clock));
        let (publisher, published) = watch::channel(Arc::default());
        context.source.published = published;
        let (counts, mut counted) = watch::channel(None);
        tokio::spawn(run(context, counts));
        counted.changed().await.unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        publisher.send_replace(Arc::default());
        counted.changed().await.unwrap();
        assert_eq!(seconds(&questions, begin), [0, 12]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leads_no_longer_asks_nobody_and_counts_for_nothing_until_it_leads_again() {
        let begin = Instant::now();
        let (leadership, mut counted, questions) = rounds(nobody_else);
        assert!(next(&mut counted).await);
        leadership.lead_for(Duration::ZERO);
        assert!(!next(&mut counted).await);
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(seconds(&questions, begin), [0]);
        leadership.lead_for(Duration::from_secs(60));
        assert!(next(&mut counted).await);
        assert_eq!(seconds(&questions, begin), [0, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_in_which_the_replicas_are_not_listed_says_nothing() {
        let begin = Instant::now();
        let (_leadership, counted, questions) = rounds(|| refusal(500, "InternalError"));
        tokio::time::timeout(Duration::from_secs(65), counted.clone().changed()).await.unwrap_err();
        assert!(counted.borrow().is_none());
        assert_eq!(seconds(&questions, begin), [0, 30, 60]);
    }
}
