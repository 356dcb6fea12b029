//! The control plane's own root, and the ConfigMap by which the webhook learns what an agent must know: roots, the
//! issuer's address and name, the audience.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use countersign_contract::{
    network::port,
    objects::{
        ISSUER_SERVICE, OPERATOR,
        control_plane::{AUDIENCE, CLUSTER_NAME, CONFIG_MAP, ISSUER, ISSUER_NAME, ROOTS},
        journal::CONTROL_PLANE_SECRET,
    },
};
use countersign_core::journal::{self, AuthorityMaker, Journal, JournalError, Plan, Receipts};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    authorities::{
        Authorities,
        journal_cache::{NO_REQUESTS, StoredSecret, control_plane_policy, examine_control_plane},
        store::{JournalStore, StoreError},
    },
    metrics::{Controller, Metrics, Outcome},
};
use countersign_runtime::clock::Clock;
use countersign_runtime::leader::{Leadership, NotLeading, gained};

const RETRY: Duration = Duration::from_secs(2);
/// Two objects are read by name; the right to watch is not needed for that.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What the controller works with.
pub struct Context {
    /// For the Service and the ConfigMap.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// The issuer's TLS name.
    pub issuer_name: String,
    /// The installation's audience.
    pub audience: String,
    /// The uid of the namespace kube-system.
    pub cluster: String,
    /// The value of `{cluster}` in paths, empty without one: clients that judge policies need it.
    pub cluster_name: String,
    /// Where the journal is made known at once.
    pub authorities: Authorities,
    /// Where it is kept.
    pub journals: JournalStore,
    /// What makes authorities.
    pub maker: Arc<dyn AuthorityMaker>,
    /// Whether this replica writes.
    pub leadership: Leadership,
    /// The time.
    pub clock: Clock,
    /// Durations of reconciles.
    pub metrics: Arc<Metrics>,
}

/// Why the control plane is not as it should be; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// The journal was not stored or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another replica writes.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// It cannot be used or made.
    #[error("Secret {CONTROL_PLANE_SECRET}: {0}")]
    Journal(#[from] JournalError),
    /// It is gone though roots were published.
    #[error(
        "Secret {CONTROL_PLANE_SECRET} is missing, and pods trust the roots in ConfigMap {CONFIG_MAP}: restore the Secret, or delete the ConfigMap to accept a new root and restart injected pods"
    )]
    Missing,
    /// The Service has no address.
    #[error("Service {ISSUER_SERVICE} has no ClusterIP yet; agents cannot find the issuer")]
    NoAddress,
    /// The API server did not do it.
    #[error("{what}: {source}")]
    Kube {
        /// What was attempted.
        what: &'static str,
        /// What the client said.
        source: Box<kube::Error>,
    },
}

/// Keeps the control plane whenever this replica leads, for as long as the process lives.
pub async fn run(context: Context) {
    let mut published = context.authorities.subscribe();
    let mut leads = context.leadership.subscribe();
    leads.mark_changed();
    loop {
        if !context.leadership.last_published() {
            gained(&mut leads).await;
        }
        let begin = tokio::time::Instant::now();
        let result = reconcile(&context).await;
        let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Error };
        context.metrics.reconciled(Controller::ControlPlane, outcome, begin.elapsed());
        let wait = match result {
            Ok(next) => next.map_or(LOOK_AGAIN, |at| context.clock.until(at).min(LOOK_AGAIN)),
            Err(ControlPlaneError::Store(StoreError::Conflict { .. }) | ControlPlaneError::NotLeading(_)) => {
                Duration::from_millis(200)
            }
            Err(error) => {
                tracing::warn!(%error, "control plane");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait + Duration::from_millis(10)) => {}
            _ = published.changed() => {}
        }
    }
}

async fn reconcile(context: &Context) -> Result<Option<Timestamp>, ControlPlaneError> {
    let now = context.clock.now();
    let kube = |what| move |source| ControlPlaneError::Kube { what, source: Box::new(source) };
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.namespace);
    let stored = config_maps.get_opt(CONFIG_MAP).await.map_err(kube("reading the ConfigMap"))?;
    let version = stored.as_ref().and_then(|map| map.metadata.resource_version.clone());
    let current = stored.and_then(|map| map.data).unwrap_or_default();

    let secret = context.journals.read(CONTROL_PLANE_SECRET).await?;
    let known = context.authorities.read(|cache| cache.control_plane().map(|journal| journal.sequence(now)));
    let roots_published = current.get(ROOTS).is_some_and(|roots| !roots.is_empty());
    let (policy, maker) = (control_plane_policy(), &*context.maker);
    let journal = match decide(secret.as_ref(), &context.cluster, known, roots_published, now)? {
        Due::Nothing(journal) => journal,
        Due::Create => {
            let journal = Journal::create(&context.cluster, None, &policy, maker, now).await?;
            store(journal, secret.as_ref(), context).await?
        }
        Due::Advance(journal, plan) => {
            let journal = journal.apply(&plan, &policy, maker, now).await?;
            store(journal, secret.as_ref(), context).await?
        }
    };

    let services: Api<Service> = Api::namespaced(context.client.clone(), &context.namespace);
    let service = services.get_opt(ISSUER_SERVICE).await.map_err(kube("reading the Service"))?;
    let address = service.as_ref().and_then(address).ok_or(ControlPlaneError::NoAddress)?;
    let wanted = data(&journal, address, context, now);
    if current != wanted {
        context.leadership.ensure()?;
        write(&config_maps, version, wanted).await.map_err(kube("writing the ConfigMap"))?;
        tracing::info!("control-plane ConfigMap written");
    }
    Ok(journal.next_change(&control_plane_policy(), &NO_REQUESTS, now))
}

/// Stores a journal in place of what was read, and makes it known.
async fn store(journal: Journal, over: Option<&StoredSecret>, context: &Context) -> Result<Journal, ControlPlaneError> {
    context.leadership.ensure()?;
    let stored = context.journals.write(CONTROL_PLANE_SECRET, None, &journal, over).await?;
    context.authorities.apply_secret(CONTROL_PLANE_SECRET, stored);
    Ok(journal)
}

/// Makes the ConfigMap, or writes it in place of exactly `version`.
async fn write(
    config_maps: &Api<ConfigMap>,
    version: Option<String>,
    data: BTreeMap<String, String>,
) -> Result<(), kube::Error> {
    let metadata = ObjectMeta { name: Some(CONFIG_MAP.to_owned()), resource_version: version, ..ObjectMeta::default() };
    if metadata.resource_version.is_none() {
        let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
        let parameters = PostParams { field_manager: Some(OPERATOR.to_owned()), ..PostParams::default() };
        return config_maps.create(&parameters, &map).await.map(drop);
    }
    let patch = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data });
    let parameters = PatchParams::apply(OPERATOR).force();
    config_maps.patch(CONFIG_MAP, &parameters, &Patch::Apply(patch)).await.map(drop)
}

/// What is due for the journal.
#[derive(Debug)]
enum Due {
    Nothing(Journal),
    Create,
    Advance(Journal, Plan),
}

fn decide(
    secret: Option<&StoredSecret>,
    cluster: &str,
    known_sequence: Option<u64>,
    roots_published: bool,
    now: Timestamp,
) -> Result<Due, ControlPlaneError> {
    let Some(secret) = secret else {
        if roots_published || known_sequence.is_some() {
            return Err(ControlPlaneError::Missing);
        }
        return Ok(Due::Create);
    };
    let journal = examine_control_plane(secret, cluster, known_sequence, now)?;
    let plan = journal::next(&journal, &control_plane_policy(), &NO_REQUESTS, &Receipts::default(), now);
    if plan.is_empty() { Ok(Due::Nothing(journal)) } else { Ok(Due::Advance(journal, plan)) }
}

fn data(journal: &Journal, address: String, context: &Context, now: Timestamp) -> BTreeMap<String, String> {
    let roots: String = journal.roots(now).iter().map(|root| root.pem()).collect();
    let mut data = BTreeMap::from([
        (ROOTS.to_owned(), roots),
        (ISSUER.to_owned(), address),
        (ISSUER_NAME.to_owned(), context.issuer_name.clone()),
        (AUDIENCE.to_owned(), context.audience.clone()),
    ]);
    if !context.cluster_name.is_empty() {
        data.insert(CLUSTER_NAME.to_owned(), context.cluster_name.clone());
    }
    data
}

/// `<ClusterIP>:<port>`, IPv6 in brackets.
fn address(service: &Service) -> Option<String> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")?;
    let ip: std::net::IpAddr = ip.parse().ok()?;
    Some(std::net::SocketAddr::new(ip, port::ISSUER).to_string())
}

#[cfg(test)]
mod tests;
