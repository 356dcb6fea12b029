//! The leader's round: asks every replica, adds up, publishes for the status. Others ask nobody.

use std::{sync::Arc, time::Duration};

use countersign_proto::inspect::v1::ReportResponse;
use futures::future::join_all;
use kube::Client;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{
    client,
    credential::Credential,
    replicas::{self, Replica},
    report::Source,
    tally::{Answer, Ledger, Totals},
};
use crate::leader::{Leadership, gained};

/// The time between rounds.
pub const EACH: Duration = Duration::from_secs(30);

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
    let mut ledger = Ledger::default();
    let mut tick = tokio::time::interval(EACH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let listed = replicas::others(&context.client, &context.namespace, &context.source.replica, context.port).await;
        match listed {
            Ok(others) => {
                let totals = ledger.enter(answers(context, others).await);
                counted.send_replace(Some(Arc::new(totals)));
            }
            Err(error) => tracing::warn!(%error, "the operator's replicas cannot be listed; they are asked later"),
        }
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
    use super::{Context, Counted, run};
    use crate::{
        canned::{Questions, answering, leading, refusal},
        clock::Clock,
        http::Readiness,
        inspect::{credential::Credential, report::Source, tally::Sight},
        issuer::{
            registry::{Registry, StreamLimits},
            skew::Support,
        },
        leader::Leadership,
    };
    use jiff::Timestamp;
    use rustls::pki_types::ServerName;
    use serde_json::{Value, json};
    use std::time::Duration;
    use tokio::{sync::watch, time::Instant};

    /// The rounds of a replica that leads, whose API server lists the others so.
    fn rounds(listed: impl Fn() -> (u16, Value) + Send + Sync + 'static) -> (Leadership, Counted, Questions) {
        let begin = Instant::now();
        let clock = Clock::new(move || Timestamp::UNIX_EPOCH + begin.elapsed());
        let (client, questions) = answering(move |_| listed());
        let leadership = leading(&clock);
        let source = Source {
            replica: "operator-a".to_owned(),
            registry: Registry::new(StreamLimits::default()),
            readiness: Readiness::default(),
            support: Support::default(),
        };
        let context = Context {
            client,
            namespace: "countersign-system".to_owned(),
            port: 8444,
            source,
            credential: Credential::new(ServerName::try_from("replica").unwrap()),
            leadership: leadership.clone(),
        };
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
            assert_eq!(counted.borrow_and_update().as_ref().unwrap().sight, Sight::Whole);
        }
        assert_eq!(seconds(&questions, begin), [0, 30, 60, 90]);
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
