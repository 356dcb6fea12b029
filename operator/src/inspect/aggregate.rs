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
