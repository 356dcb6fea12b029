//! TrustDomains: keeps each one's journal (first authorities, successors in time, removal of what has ended) and tells its
//! status. A journal that cannot be used is `Stalled`, never a new root.

use std::{collections::HashMap, sync::Arc, time::Duration};

use countersign_core::bundle::Bundle;
use countersign_core::entitlement::DomainKind;
use countersign_core::journal::{AuthorityMaker, Journal, JournalError};
use countersign_crds::TrustDomain;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{
    Client, ResourceExt,
    runtime::{
        controller::{Action, Config, applier},
        reflector::{ObjectRef, Store},
    },
};
use parking_lot::Mutex;

use self::{
    journal::{keep_journal, newer_claims, summary},
    status::{Assessment, status, write_status},
};
use super::leader_gate::{elsewhere, on_gain};
use crate::{
    authorities::{
        Authorities,
        journal_cache::AuthorityConfig,
        store::{JournalStore, StoreError},
    },
    federation::{self, RemoteBundles, cluster_trust_bundles::ClusterTrustBundles, store::BundleStore},
    inspect::{aggregate::Counted, identity_counts::Totals},
    metrics::{Controller, Metrics, Outcome},
};
use countersign_index::{DomainVerdict, SharedIndex};
use countersign_issuer::published::PublishedBundle;
use countersign_runtime::clock::Clock;
use countersign_runtime::leader::{Leadership, NotLeading};

/// The longest time without a look, should a timer be lost to a suspended machine.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// What the controller works with.
pub struct Context {
    /// For status.
    pub client: Client,
    /// What became of the objects.
    pub index: SharedIndex,
    /// What is known of remote trust domains.
    pub remote_bundles: RemoteBundles,
    /// Where bundle documents are published for people.
    pub bundle_store: BundleStore,
    /// Where X.509 anchors are published for pods without an agent.
    pub trust_bundles: ClusterTrustBundles,
    /// The bundles that were written there, by the uids of TrustDomains.
    pub written_bundles: Mutex<HashMap<String, Arc<PublishedBundle>>>,
    /// Where a written journal is made known at once.
    pub authorities: Authorities,
    /// Where journals are kept.
    pub journals: JournalStore,
    /// What agents acknowledged.
    pub counted: Counted,
    /// What makes authorities.
    pub maker: Arc<dyn AuthorityMaker>,
    /// The uid of the namespace kube-system.
    pub cluster: String,
    /// Whether this replica writes.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Durations of reconciles.
    pub metrics: Arc<Metrics>,
}

/// Why a reconcile did not end well; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The journal was not stored or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bundle document was not published for people.
    #[error(transparent)]
    Bundle(#[from] federation::store::StoreError),
    /// No authority could be made.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another replica writes.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The object changed meanwhile.
    #[error("TrustDomain {name} was changed by another; looking again")]
    Changed {
        /// The object's name.
        name: String,
    },
    /// The status was not written.
    #[error("the status of TrustDomain {name} was not written: {source}")]
    Status {
        /// The object's name.
        name: String,
        /// What the client said.
        source: Box<kube::Error>,
    },
}

/// Reconciles TrustDomains for as long as the process lives; what follows from them is written by the replica that leads.
pub async fn run(context: Arc<Context>, store: Store<TrustDomain>) {
    let dirty = stream::unfold(context.clone(), |context| async move {
        let names = tokio::select! {
            names = context.index.dirty_domains() => names,
            names = context.authorities.changed_domains() => names,
            names = context.remote_bundles.changed_domains() => names,
        };
        let mine = context.leadership.last_published();
        let references: Vec<_> = names.iter().filter(|_| mine).map(|name| ObjectRef::new(name)).collect();
        Some((references, context))
    });
    let all = {
        let store = store.clone();
        move || store.state().iter().map(|domain| ObjectRef::from_obj(&**domain)).collect()
    };
    let acknowledged = acknowledged_anew(context.counted.clone(), store.clone());
    let queue = stream::select(stream::select(dirty, acknowledged), on_gain(&context.leadership, all))
        .flat_map(|references: Vec<_>| stream::iter(references.into_iter().map(Ok::<_, std::convert::Infallible>)));
    let timed = |domain, context: Arc<Context>| {
        Box::pin(async move {
            let begin = tokio::time::Instant::now();
            let result = reconcile(domain, &context).await;
            let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Error };
            context.metrics.reconciled(Controller::TrustDomain, outcome, begin.elapsed());
            result
        })
    };
    let reconciles = applier(timed, on_error, context, store, queue, Config::default());
    reconciles
        .for_each(|result| async {
            if let Err(error) = result {
                tracing::debug!(%error, "reconcile of a TrustDomain");
            }
        })
        .await;
}

/// The TrustDomains whose workloads acknowledged something else, whenever that has been counted.
fn acknowledged_anew(
    counted: Counted,
    store: Store<TrustDomain>,
) -> impl futures::Stream<Item = Vec<ObjectRef<TrustDomain>>> {
    stream::unfold((counted, store, None::<Arc<Totals>>), |(mut counted, store, before)| async move {
        counted.changed().await.ok()?;
        let now = counted.borrow_and_update().clone();
        let is_changed = |domain: &TrustDomain| {
            now.as_ref().is_some_and(|now| now.has_other_receipts(before.as_deref(), domain.trust_domain_name()))
        };
        let all = store.state();
        let references = all.iter().filter(|domain| is_changed(domain)).map(|domain| ObjectRef::from_obj(&**domain));
        let references = references.collect();
        Some((references, (counted, store, now)))
    })
}

fn on_error(domain: Arc<TrustDomain>, error: &ReconcileError, context: Arc<Context>) -> Action {
    match error {
        ReconcileError::Store(StoreError::Conflict { .. }) | ReconcileError::Changed { .. } => {
            return Action::requeue(Duration::from_millis(200));
        }
        ReconcileError::NotLeading(_) => return elsewhere(&context.leadership),
        ReconcileError::Store(_)
        | ReconcileError::Bundle(_)
        | ReconcileError::Journal(_)
        | ReconcileError::Status { .. } => {}
    }
    tracing::warn!(name = domain.name_any(), %error, "TrustDomain");
    Action::requeue(Duration::from_secs(5))
}

async fn reconcile(domain: Arc<TrustDomain>, context: &Context) -> Result<Action, ReconcileError> {
    context.leadership.ensure()?;
    let Some(verdict) = context.index.read(|index| index.domain(&domain.name_any())) else {
        return Ok(Action::await_change());
    };
    let now = context.clock.now();
    if let DomainVerdict::Accepted(spec) = &verdict
        && domain.spec.remote.is_some()
    {
        return reconcile_remote(&domain, &spec.trust_domain, context, now).await;
    }
    let accepted = match &verdict {
        DomainVerdict::Accepted(spec) => Some(spec),
        DomainVerdict::Invalid(_) | DomainVerdict::Duplicate { .. } => None,
    };
    let (assessment, next_look) = match &verdict {
        DomainVerdict::Accepted(spec) if spec.kind == DomainKind::Local => {
            let facts = countersign_policy::authority_config(&domain, spec.trust_domain.clone());
            match keep_journal(&facts, context, now).await? {
                Ok(journal) => {
                    let next = journal.next_change(&facts.policy, &facts.requests, now);
                    let acks = summary(&journal, &facts, context, now);
                    (Assessment::Signing { journal, facts, acks }, next)
                }
                Err(problem) => (Assessment::Problem { problem, facts }, None),
            }
        }
        DomainVerdict::Accepted(_) => (Assessment::Nothing, None),
        DomainVerdict::Invalid(error) => (Assessment::Invalid(error.to_string()), None),
        DomainVerdict::Duplicate { of, trust_domain } => {
            (Assessment::Duplicate { of: of.clone(), trust_domain: trust_domain.to_string() }, None)
        }
    };
    let mut status = status(&domain, &assessment, now);
    status.conditions.extend(accepted.map(|spec| separation::condition(spec, &domain, now)));
    if let Assessment::Signing { journal, facts, acks } = &assessment {
        let all = context.index.authorities().borrow().clone();
        status.conditions.extend(issuer::condition(&domain, facts, &all, now));
        status.conditions.extend(requests::conditions(&domain, journal, facts, &status.removed, now));
        let name = |uid: &str| {
            let pod = context.index.read(|index| index.pod(uid));
            pod.map_or_else(|| uid.to_owned(), |pod| format!("{}/{}", pod.facts.namespace, pod.facts.name))
        };
        status.conditions.push(acknowledgements::condition(&domain, acks.as_ref(), name, now));
        let claims = newer_claims(journal, facts, context, now);
        status.conditions.push(sequence::condition(&domain, journal.sequence(now), claims.as_ref(), name, now));
    }
    write_status(&domain, status, context).await?;
    if let Assessment::Signing { journal, facts, .. } = &assessment {
        publish_bundle(journal, facts, context, now).await?;
    }
    let wait = next_look.map_or(LOOK_AGAIN, |at| context.clock.until(at).min(LOOK_AGAIN));
    // A moment after the switch, so that it has happened when we look.
    Ok(Action::requeue(wait + Duration::from_millis(10)))
}

/// Writes the bundle document where people find it, when it has changed since this replica wrote it last.
async fn publish_bundle(
    journal: &Journal,
    facts: &AuthorityConfig,
    context: &Context,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let published = context.authorities.subscribe().borrow().bundles.get(&facts.trust_domain).cloned();
    let Some(bundle) = published.filter(|bundle| bundle.sequence == journal.sequence(now)) else {
        return Ok(());
    };
    if context.written_bundles.lock().get(&facts.uid) == Some(&bundle) {
        return Ok(());
    }
    context.leadership.ensure()?;
    context.bundle_store.publish(&facts.name, &facts.uid, &bundle.document).await?;
    let anchors =
        Bundle::parse(&facts.trust_domain, &bundle.document).map(|bundle| bundle.x509_pem()).unwrap_or_default();
    if let Err(error) = context.trust_bundles.publish(&facts.name, &facts.uid, &anchors).await {
        // Nothing of ours depends on it, so it delays nothing; it is tried again at the next look.
        tracing::warn!(name = facts.name, %error, "the ClusterTrustBundle is not published");
        return Ok(());
    }
    context.written_bundles.lock().insert(facts.uid.clone(), bundle);
    Ok(())
}

/// Its bundle is kept by the poller; here is only its status.
async fn reconcile_remote(
    domain: &TrustDomain,
    trust_domain: &countersign_core::id::TrustDomain,
    context: &Context,
    now: Timestamp,
) -> Result<Action, ReconcileError> {
    let Some(known) = context.remote_bundles.known(&domain.name_any()) else {
        // Made known by its change, which wakes us again.
        return Ok(Action::await_change());
    };
    let (users, shared) = (remote::users(&context.index, trust_domain), remote::shared(trust_domain, context));
    let (status, next_change) = remote::status(domain, &known, &users, &shared, now);
    write_status(domain, status, context).await?;
    let wait = next_change.map_or(LOOK_AGAIN, |at| context.clock.until(at).min(LOOK_AGAIN));
    Ok(Action::requeue(wait + Duration::from_millis(10)))
}

mod acknowledgements;
mod issuer;
mod journal;
mod remote;
mod requests;
mod separation;
mod sequence;
mod status;
#[cfg(test)]
mod tests;
