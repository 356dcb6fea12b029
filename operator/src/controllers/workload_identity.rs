//! WorkloadIdentities: tells in each one's status what became of it and how many pods it is about. Decides nothing: the
//! issuer acts on the same outcome from the same index.

use std::{sync::Arc, time::Duration};

use countersign_core::entitlement::{Judged, Refusal};
use countersign_crds::{PodCounts, WorkloadIdentity, WorkloadIdentityStatus};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        controller::{Action, Config, applier},
        reflector::{ObjectRef, Store},
    },
};
use serde_json::json;

use super::conditions::Health;
use crate::{
    clock::Clock,
    config::FIELD_MANAGER,
    index::{IdentityKey, IdentityView, SharedIndex},
    metrics::{Controller, Metrics, Outcome},
};

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
    /// The time.
    pub clock: Clock,
    /// Durations of reconciles.
    pub metrics: Arc<Metrics>,
}

/// The status was not written; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("the status of WorkloadIdentity {namespace}/{name} was not written: {source}")]
pub struct StatusError {
    namespace: String,
    name: String,
    source: Box<kube::Error>,
}

/// Reconciles WorkloadIdentities for as long as the process lives.
pub async fn run(context: Arc<Context>, store: Store<WorkloadIdentity>) {
    let queue = stream::unfold(context.clone(), |context| async move {
        let keys = context.index.dirty_identities().await;
        let reference = |key: IdentityKey| ObjectRef::new(&key.name).within(&key.namespace);
        let references: Vec<_> =
            keys.into_iter().map(|key| Ok::<_, std::convert::Infallible>(reference(key))).collect();
        Some((stream::iter(references), context))
    })
    .flatten();
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
    let on_error = |_, error: &StatusError, _| {
        tracing::warn!(%error, "WorkloadIdentity");
        Action::requeue(Duration::from_secs(5))
    };
    applier(timed, on_error, context, store, queue, config)
        .for_each(|result| async {
            if let Err(error) = result {
                tracing::debug!(%error, "reconcile of a WorkloadIdentity");
            }
        })
        .await;
}

async fn reconcile(identity: Arc<WorkloadIdentity>, context: &Context) -> Result<Action, StatusError> {
    let namespace = identity.namespace().unwrap_or_default();
    let key = IdentityKey { namespace, name: identity.name_any() };
    let Some(view) = context.index.read(|index| index.identity(&key)) else {
        return Ok(Action::await_change());
    };
    if view.uid != identity.uid().unwrap_or_default() || Some(view.generation) != identity.meta().generation {
        // The index and the store are fed one after the other; the second wakes us again.
        return Ok(Action::requeue(DEBOUNCE));
    }
    let status = status(&identity, &view, context.clock.now());
    if identity.status.as_ref() != Some(&status) {
        write_status(&identity, key, status, context).await?;
    }
    Ok(Action::await_change())
}

fn status(identity: &WorkloadIdentity, view: &IdentityView, now: Timestamp) -> WorkloadIdentityStatus {
    let old = identity.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = identity.meta().generation;
    let count = |pods: usize| i64::try_from(pods).unwrap_or(i64::MAX);
    WorkloadIdentityStatus {
        conditions: health(view).conditions(generation, old, now),
        observed_generation: generation,
        spiffe_id_template: view.outcome.as_ref().ok().map(template),
        pods: Some(PodCounts { matched: count(view.matched), not_injected: count(view.not_injected), served: None }),
        next_expiry: None,
        outdated_agents: None,
    }
}

fn health(view: &IdentityView) -> Health {
    let judged = match &view.outcome {
        Ok(judged) => judged,
        Err(error) => return Health::stalled("Invalid", error.to_string()),
    };
    match judged.outcome() {
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
        Err(Refusal::NoTrustDomain { .. }) => Health::reconciling(judged.reason(), judged.message()),
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
        "metadata": { "name": name, "namespace": namespace, "uid": identity.uid() },
        "status": status,
    });
    let api: Api<WorkloadIdentity> = Api::namespaced(context.client.clone(), &namespace);
    match api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch)).await {
        Ok(_) => Ok(()),
        // Deleted, or deleted and made anew, meanwhile: its watch event tells.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(source) => Err(StatusError { namespace, name, source: Box::new(source) }),
    }
}

#[cfg(test)]
mod tests;
