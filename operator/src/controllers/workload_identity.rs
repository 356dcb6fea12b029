//! WorkloadIdentities: tells in each one's status what became of it, how many pods it is about and how many are served.
//! Decides nothing: the issuer acts on the same outcome from the same index.

mod claims;
mod federation;
mod refreshing;
mod stream_stats;
mod undelivered;
mod wit;

use countersign_reasons::Reason;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use countersign_contract::objects::OPERATOR;
use countersign_core::{
    entitlement::{DomainSpec, GrantError, Judged, Refusal},
    id::TrustDomain,
};
use countersign_crds::{ClaimRecord, PodCounts, WorkloadIdentity, WorkloadIdentityStatus};
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        controller::{Action, Config, applier},
        reflector::{ObjectRef, Store},
    },
};
use serde_json::json;
use tokio::sync::watch;

use super::{
    conditions::Health,
    leader_gate::{elsewhere, on_gain},
};
use crate::{
    authorities::{
        Authorities,
        readiness::{AuthorityReadiness, AuthorityReadinessMap, changes},
    },
    inspect::{aggregate::Counted, identity_counts::Totals},
    metrics::{Controller, Metrics, Outcome},
};
use countersign_index::{IdentityKey, IdentityView, SharedIndex};
use countersign_issuer::published::Published;
use countersign_runtime::clock::Clock;
use countersign_runtime::leader::{Leadership, NotLeading};
use undelivered::Delivered;

/// Counts of pods change in waves; one write follows each.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Statuses written at the same time.
const CONCURRENT: u16 = 16;

/// What the controller works with.
pub struct Context {
    /// For status.
    pub client: Client,
    /// What became of the objects.
    pub index: SharedIndex,
    /// Whether their trust domains' authorities can be used.
    pub authorities: Authorities,
    /// What lives in streams.
    pub counted: Counted,
    /// Whether this replica writes.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Durations of reconciles.
    pub metrics: Arc<Metrics>,
}

/// Why a status was not written; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Another replica writes.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The object changed meanwhile.
    #[error("WorkloadIdentity {namespace}/{name} was changed by another; looking again")]
    Changed {
        /// The object's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The API server did not do it.
    #[error("the status of WorkloadIdentity {namespace}/{name} was not written: {source}")]
    Kube {
        /// The object's namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the client said.
        source: Box<kube::Error>,
    },
}

type Reference = ObjectRef<WorkloadIdentity>;

/// Reconciles WorkloadIdentities whenever this replica leads, for as long as the process lives.
pub async fn run(context: Arc<Context>, store: Store<WorkloadIdentity>) {
    let dirty = stream::unfold(context.clone(), |context| async move {
        let keys = context.index.dirty_identities().await;
        Some((keys.iter().map(reference).collect(), context))
    });
    let reader = store.clone();
    let all = move || reader.state().iter().map(|identity| ObjectRef::from_obj(&**identity)).collect();
    let gained = on_gain(&context.leadership, all);
    let reader = store.clone();
    let of_domain = changed_authorities(context.authorities.readiness()).map(move |domains| {
        let all = reader.state();
        let of_domains = all.iter().filter(|identity| domains.contains(&identity.spec.trust_domain));
        of_domains.map(|identity| ObjectRef::from_obj(&**identity)).collect()
    });
    let foreign = changed_foreign(context.authorities.subscribe(), context.index.clone());
    let counted = counted_anew(context.counted.clone(), store.clone());
    let leadership = context.leadership.clone();
    let queue =
        stream::select(stream::select(dirty, gained), stream::select(stream::select(of_domain, foreign), counted))
            .filter(move |_: &Vec<Reference>| std::future::ready(leadership.last_published()))
            .flat_map(|references| stream::iter(references.into_iter().map(Ok::<_, std::convert::Infallible>)));
    let timed = |identity, context: Arc<Context>| {
        Box::pin(async move {
            let begin = tokio::time::Instant::now();
            let result = reconcile(identity, &context).await;
            let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Error };
            context.metrics.reconciled(Controller::WorkloadIdentity, outcome, begin.elapsed());
            result
        })
    };
    let config = Config::default().debounce(DEBOUNCE).concurrency(CONCURRENT);
    let index = context.index.clone();
    let reconciles = applier(timed, on_error, context, store, queue, config).for_each(|result| async {
        if let Err(error) = result {
            tracing::debug!(%error, "reconcile of a WorkloadIdentity");
        }
    });
    tokio::join!(reconciles, index.keep_naming_holders());
}

/// The names of TrustDomains whose authorities have become ready, or are no longer.
fn changed_authorities(readiness: watch::Receiver<Arc<AuthorityReadinessMap>>) -> impl Stream<Item = Vec<String>> {
    let before = Arc::default();
    stream::unfold((readiness, before), |(mut readiness, before): (_, Arc<AuthorityReadinessMap>)| async move {
        // The sender lives as long as the process.
        readiness.changed().await.ok()?;
        let after = readiness.borrow_and_update().clone();
        Some((changes(&before, &after), (readiness, after)))
    })
}

/// The identities that name a foreign trust domain of which a bundle is published now, or no more, or another one. It follows what is
/// published, by which their status is decided: a bundle of a remote trust domain is known to others before that.
fn changed_foreign(
    published: watch::Receiver<Arc<Published>>,
    index: SharedIndex,
) -> impl Stream<Item = Vec<Reference>> {
    let state = (published, index, Arc::<Published>::default());
    stream::unfold(state, |(mut published, index, before)| async move {
        published.changed().await.ok()?;
        let now = published.borrow_and_update().clone();
        let version = |published: &Published, name: &TrustDomain| {
            published.bundles.get(name).map(|bundle| (bundle.sequence, bundle.document.len()))
        };
        let names: HashSet<_> = before.bundles.keys().chain(now.bundles.keys()).collect();
        let changed = names.into_iter().filter(|name| version(&before, name) != version(&now, name));
        let users: BTreeSet<_> =
            changed.flat_map(|name| index.read(|index| index.users_of(name))).map(|one| one.0).collect();
        let references = users.iter().map(reference).collect();
        Some((references, (published, index, now)))
    })
}

fn on_error(_: Arc<WorkloadIdentity>, error: &StatusError, context: Arc<Context>) -> Action {
    match error {
        StatusError::NotLeading(_) => elsewhere(&context.leadership),
        StatusError::Changed { .. } => Action::requeue(DEBOUNCE),
        StatusError::Kube { .. } => {
            tracing::warn!(%error, "WorkloadIdentity");
            Action::requeue(Duration::from_secs(5))
        }
    }
}

fn reference(key: &IdentityKey) -> Reference {
    ObjectRef::new(&key.name).within(&key.namespace)
}

/// The identities of which a round of counting says something new.
fn counted_anew(counted: Counted, store: Store<WorkloadIdentity>) -> impl Stream<Item = Vec<Reference>> {
    let state = (counted, store, None::<Arc<Totals>>, None::<Arc<Totals>>);
    stream::unfold(state, |(mut counted, store, before, last)| async move {
        counted.changed().await.ok()?;
        let now = counted.borrow_and_update().clone();
        let changed: Option<HashSet<IdentityKey>> = match (&now, &before) {
            (Some(now), Some(before)) => now.changed(before),
            (Some(_), None) => None,
            // This replica leads no longer.
            (None, _) => Some(HashSet::new()),
        };
        let references = match changed {
            Some(keys) => {
                let lost = now.as_ref().map(|now| now.other_unconnected(last.as_deref())).unwrap_or_default();
                let all = if lost.is_empty() { Vec::new() } else { store.state() };
                let of_lost =
                    all.iter().filter(|one| one.metadata.namespace.as_deref().is_some_and(|name| lost.contains(name)));
                let mut keys: HashSet<Reference> = keys.iter().map(reference).collect();
                keys.extend(of_lost.map(|identity| ObjectRef::from_obj(&**identity)));
                keys.into_iter().collect()
            }
            None => store.state().iter().map(|identity| ObjectRef::from_obj(&**identity)).collect(),
        };
        // A round in which it was not known who is connected is passed over.
        let last = now.clone().filter(|now| now.unconnected.is_some()).or(last);
        Some((references, (counted, store, now, last)))
    })
}

async fn reconcile(identity: Arc<WorkloadIdentity>, context: &Context) -> Result<Action, StatusError> {
    context.leadership.ensure()?;
    let namespace = identity.namespace().unwrap_or_default();
    let key = IdentityKey { namespace, name: identity.name_any() };
    let now = context.clock.now();
    let seen = context.index.update(|index| Some((index.identity(&key)?, index.record_claims(&key, now))));
    let Some((view, claims)) = seen else { return Ok(Action::await_change()) };
    let is_of_view = view.uid == identity.uid().unwrap_or_default()
        && Some(view.generation) == identity.meta().generation
        && view.history == countersign_policy::claim_history(&identity);
    if !is_of_view {
        // The index and the store are fed one after the other; the second wakes us again.
        return Ok(Action::requeue(DEBOUNCE));
    }
    let counted = context.counted.borrow().clone();
    let readiness = context.authorities.readiness().borrow().clone();
    let usable =
        granting(&view).map(|domain| readiness.get(&domain.name).cloned().unwrap_or(AuthorityReadiness::NotYet));
    let published = context.authorities.subscribe().borrow().clone();
    let claims = claims.map(claims::records);
    let seen = Seen { usable, totals: counted.as_deref(), claims, published: &published, index: &context.index };
    let status = status(&identity, &view, &seen, now);
    if identity.status.as_ref() != Some(&status) {
        write_status(&identity, key, status, context).await?;
    }
    Ok(Action::await_change())
}

/// What is known beside the index.
#[derive(Debug)]
struct Seen<'a> {
    /// Of the domain that grants the identity; none where none does.
    usable: Option<AuthorityReadiness>,
    /// None before the first round.
    totals: Option<&'a Totals>,
    /// Since when the claims are granted; none while nothing is to be recorded.
    claims: Option<Vec<ClaimRecord>>,
    /// The bundles there are.
    published: &'a Published,
    /// For the names of pods.
    index: &'a SharedIndex,
}

fn granting(view: &IdentityView) -> Option<&DomainSpec> {
    view.outcome.as_ref().ok()?.outcome().ok().map(|domain| &**domain)
}

fn status(identity: &WorkloadIdentity, view: &IdentityView, seen: &Seen<'_>, now: Timestamp) -> WorkloadIdentityStatus {
    let old = identity.status.clone().unwrap_or_default();
    let generation = identity.meta().generation;
    let count = |pods: usize| i64::try_from(pods).unwrap_or(i64::MAX);
    let key = IdentityKey { namespace: identity.namespace().unwrap_or_default(), name: identity.name_any() };
    let matched = count(view.matched);
    let not_injected = count(view.not_injected);
    let live = stream_stats::live(&old, seen.totals, &key, matched, now);
    let mut conditions = health(view, seen.usable.as_ref()).conditions(generation, &old.conditions, now);
    conditions.extend(stream_stats::condition(&live.whole, generation, &old.conditions, now));
    conditions.extend(refreshing::condition(view, generation, &old.conditions, now));
    conditions.extend(federation::condition(view, seen.published, generation, &old.conditions, now));
    conditions.extend(wit::condition(view, seen.published, generation, &old.conditions, now));
    conditions.extend(claims::condition(view, generation, &old.conditions, now));
    let delivered = seen.totals.and_then(|totals| Delivered::now(totals, &key, matched - not_injected, seen.index));
    let Delivered { held, agents, undelivered } = delivered.unwrap_or_else(|| Delivered::before(&old, matched));
    WorkloadIdentityStatus {
        conditions,
        observed_generation: generation,
        spiffe_id_template: view.outcome.as_ref().ok().map(template),
        pods: Some(PodCounts { matched, not_injected, served: live.served, held }),
        next_expiry: live.next_expiry.map(Time),
        claims: seen.claims.clone(),
        outdated_agents: live.outdated,
        agents,
        undelivered,
    }
}

fn health(view: &IdentityView, usable: Option<&AuthorityReadiness>) -> Health {
    let judged = match &view.outcome {
        Ok(judged) => judged,
        Err(error) => return Health::stalled(Reason::Invalid, error.to_string()),
    };
    match judged.outcome() {
        Ok(domain) if let Some(AuthorityReadiness::Stalled(problem)) = usable => Health::stalled(
            Reason::AuthorityStalled,
            format!(
                "the authority of TrustDomain {} needs a person, and until then it is not sure that pods get this identity: \
                 {problem}",
                domain.name
            ),
        ),
        Ok(domain) if usable != Some(&AuthorityReadiness::Ready) => Health::reconciling(
            Reason::AuthorityNotReady,
            format!("TrustDomain {} has no authority that signs yet; its conditions say why", domain.name),
        ),
        Ok(_) if view.not_injected > 0 => Health::ready(
            judged.reason(),
            format!(
                "{}; {} of {} pods have no agent: restart them once they or their namespace carry the label \
                 countersign.dev/inject",
                judged.message(),
                view.not_injected,
                view.matched
            ),
        ),
        Ok(_) => Health::ready(judged.reason(), judged.message()),
        // It may come at any time: objects are applied in any order.
        Err(Refusal::NoTrustDomain { .. } | Refusal::NotGranted(GrantError::UnknownNamespace { .. })) => {
            Health::reconciling(judged.reason(), judged.message())
        }
        Err(_) => Health::stalled(judged.reason(), judged.message()),
    }
}

/// The id with what is the same for every pod filled in.
fn template(judged: &Judged) -> String {
    let spec = judged.identity();
    let path = spec.path.to_string().replace("{namespace}", &spec.namespace);
    let path = match spec.selector.service_accounts.as_slice() {
        [account] => path.replace("{serviceAccount}", account),
        _ => path,
    };
    format!("{}{path}", spec.trust_domain.id_string())
}

async fn write_status(
    identity: &WorkloadIdentity,
    key: IdentityKey,
    status: WorkloadIdentityStatus,
    context: &Context,
) -> Result<(), StatusError> {
    let IdentityKey { namespace, name } = key;
    let patch = json!({
        "apiVersion": WorkloadIdentity::api_version(&()),
        "kind": WorkloadIdentity::kind(&()),
        // Fenced: one that leads no longer must not overwrite what the next leader wrote.
        "metadata": {
            "name": name, "namespace": namespace, "uid": identity.uid(), "resourceVersion": identity.resource_version(),
        },
        "status": status,
    });
    context.leadership.ensure()?;
    let api: Api<WorkloadIdentity> = Api::namespaced(context.client.clone(), &namespace);
    match api.patch_status(&name, &PatchParams::apply(OPERATOR).force(), &Patch::Apply(patch)).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile: its watch event tells.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Err(StatusError::Changed { namespace, name }),
        Err(source) => Err(StatusError::Kube { namespace, name, source: Box::new(source) }),
    }
}

#[cfg(test)]
mod tests;
