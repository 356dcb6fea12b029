//! Keeps what is known of remote trust domains, where this replica leads: takes the bundle from the TrustDomain, polls the
//! endpoint, stores what is kept. Each TrustDomain has a task of its own, so that one bad peer delays nobody else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use countersign_core::{
    federation::{Observation, PollOutcome, PollTarget, Profile, Stored, StoredRemote, decide, poll_target},
    id::TrustDomain,
};
use countersign_federation::Fetcher;
use countersign_index::{Remote, Remotes};
use countersign_runtime::{
    clock::Clock,
    leader::{Leadership, NotLeading},
};
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
};

use super::{
    RemoteBundles,
    metrics::FederationMetrics,
    store::{BundleStore, StoreError, StoredBundle},
};
use crate::authorities::Authorities;

/// Polls at the same time. A peer that answers slowly holds one of them for at most the time a poll may take.
const CONCURRENT: usize = 32;

/// How soon to try again what the API server did not do.
const AGAIN: Duration = Duration::from_secs(5);

/// What the poller works with.
#[derive(Clone)]
pub struct Context {
    /// Where what is kept is published.
    pub bundles: RemoteBundles,
    /// Where it is stored.
    pub store: BundleStore,
    /// What fetches bundles.
    pub fetcher: Arc<Fetcher>,
    /// The bundles by which endpoints of another trust domain's identity are verified.
    pub authorities: Authorities,
    /// Whether this replica writes.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Counts of polls.
    pub metrics: FederationMetrics,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
}

/// Keeps all remote TrustDomains whenever this replica leads, for as long as the process lives.
pub async fn run(context: Context, mut remotes: watch::Receiver<Arc<Remotes>>) {
    let mut leads = context.leadership.subscribe();
    let polls = Arc::new(Semaphore::new(CONCURRENT));
    let mut tasks: HashMap<String, (Remote, AbortHandle)> = HashMap::new();
    loop {
        let wanted: BTreeMap<String, Remote> = match *leads.borrow_and_update() {
            true => remotes.borrow_and_update().by_name.clone(),
            false => BTreeMap::new(),
        };
        // A task begins anew where its TrustDomain was changed: what it waited for is decided again.
        tasks.retain(|name, (remote, task)| {
            let stays = wanted.get(name).is_some_and(|wanted| wanted == remote);
            if !stays {
                task.abort();
                context.bundles.set_latest(name, None);
            }
            stays
        });
        for (name, remote) in wanted {
            tasks.entry(name.clone()).or_insert_with(|| {
                let (polls, context) = (polls.clone(), context.clone());
                let task = Task { name, remote: remote.clone(), polls, context };
                (remote, tokio::spawn(task.run()).abort_handle())
            });
        }
        let ended = tokio::select! {
            changed = leads.changed() => changed,
            changed = remotes.changed() => changed,
        };
        // The senders live as long as the process.
        if ended.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Keeps one remote TrustDomain.
struct Task {
    name: String,
    remote: Remote,
    polls: Arc<Semaphore>,
    context: Context,
}

impl Task {
    async fn run(self) {
        loop {
            match self.keep().await {
                Ok(()) | Err(KeepError::Store(StoreError::Conflict { .. })) => {}
                Err(KeepError::NotLeading(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
                Err(error) => {
                    tracing::warn!(name = self.name, %error, "the bundle of a remote TrustDomain is not stored");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Reads what is stored, and keeps it until it cannot be written.
    async fn keep(&self) -> Result<(), KeepError> {
        let Context { bundles, store, clock, leadership, .. } = &self.context;
        let mut over = store.read(&self.name).await?;
        // What was read is what all replicas go by; what is unreadable is as if absent, and reported.
        bundles.apply_stored(&self.name, over.as_ref().map(|stored| stored.bytes.clone()));
        let mut written = self.parse(over.as_ref());
        let mut latest: Option<StoredRemote> = None;
        let mut observation: Option<Observation> = None;
        loop {
            let Some(known) = bundles.known(&self.name) else {
                // Gone: whoever started this task ends it.
                std::future::pending::<()>().await;
                return Ok(());
            };
            let mut remote = known.remote();
            if let Some(latest) = &latest {
                remote.stored = Stored::Read(latest);
            }
            let now = clock.now();
            let decision = decide(&remote, observation.take().as_ref(), now, rand::random());
            if let Some(poll) = decision.poll {
                self.report(&poll);
            }
            let max_stale = self.remote.spec.max_stale();
            let is_due = decision.is_changed
                && written.as_ref().is_none_or(|written| decision.stored.is_worth_writing_over(written, max_stale));
            if is_due {
                leadership.ensure()?;
                over = Some(store.write(&self.name, &self.remote.uid, &decision.stored, over.as_ref()).await?);
                written = Some(decision.stored.clone());
                bundles.apply_stored(&self.name, over.as_ref().map(|stored| stored.bytes.clone()));
            }
            bundles.set_latest(&self.name, Some(decision.stored.clone()));
            self.context.metrics.confirmed(bundles.oldest_confirmation());
            latest = Some(decision.stored);
            let next_poll = decision.next_poll;
            let next = [next_poll, decision.next_change].into_iter().flatten().min().unwrap_or(Timestamp::MAX);
            while clock.now() < next {
                clock.draws_near(next).await;
                if !bundles.is_stored(&self.name, over.as_ref().map(|stored| stored.bytes.as_slice())) {
                    tracing::warn!(name = self.name, "what is kept of a remote TrustDomain was changed by another");
                    return Ok(());
                }
            }
            if next_poll.is_some_and(|at| at <= clock.now()) {
                observation = self.poll(latest.as_ref()).await;
            }
        }
    }

    fn parse(&self, stored: Option<&StoredBundle>) -> Option<StoredRemote> {
        StoredRemote::from_bytes(self.remote.spec.trust_domain(), &stored?.bytes).ok()
    }

    async fn poll(&self, latest: Option<&StoredRemote>) -> Option<Observation> {
        let known = self.context.bundles.known(&self.name)?;
        let mut remote = known.remote();
        remote.stored = latest.map_or(remote.stored, Stored::Read);
        let target = poll_target(&remote, self.context.clock.now())?;
        let anchors = self.anchors(&target);
        let _permit = self.polls.acquire().await.ok()?;
        Some(self.context.fetcher.fetch(target, anchors.as_ref()).await)
    }

    /// The bundle that verifies an endpoint of another trust domain's identity: the one that is handed out of that.
    fn anchors(&self, target: &PollTarget) -> Option<countersign_core::bundle::Bundle> {
        let Profile::HttpsSpiffe { id } = &target.endpoint.profile else { return None };
        let domain: &TrustDomain = id.trust_domain();
        if *domain == target.trust_domain {
            return None;
        }
        let published = self.context.authorities.subscribe().borrow().clone();
        let document = &published.bundles.get(domain)?.document;
        countersign_core::bundle::Bundle::parse(domain, document).ok()
    }

    fn report(&self, poll: &PollOutcome) {
        self.context.metrics.polled(poll.label());
        let name = &self.name;
        match poll {
            PollOutcome::Updated => tracing::info!(name, "the bundle of a remote trust domain changed"),
            PollOutcome::Refused(refusal) => tracing::info!(name, %refusal, "a poll brought no bundle that is taken"),
            PollOutcome::Confirmed | PollOutcome::Outdated => {}
        }
    }
}
