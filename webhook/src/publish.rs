//! The controller of the webhook's CA. It observes, decides and applies for the Secret of the CA, `caBundle` of both
//! configurations, and the Secret of the serving certificate. Several replicas run at once: each write is fenced by
//! resourceVersion, and the CA's Secret is read last, so a replica that read an older CA cannot write an older `caBundle` or
//! certificate.
//!
//! It is a separate process with its own service account and no port: compromising the process that answers admission requests
//! gives no rights to the configurations or the Secrets.

mod configurations;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use countersign_contract::{
    network::service_name,
    objects::{
        WEBHOOK,
        webhook_secret::{CA as SECRET, CA_TYPE as SECRET_TYPE, SERVING as SERVING_SECRET},
    },
};
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PartialObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use tokio::time::timeout;
use zeroize::Zeroize as _;

use crate::{
    ca::{self, CaError, CaState, IssuedCertificate, Plan, ServedCertificate, ValidityPeriods},
    health::Health,
    serving::{self, StoredCertificate},
};
use configurations::{Configurations, Observed};

/// The field manager of `caBundle`. The name is that of earlier releases, so that an upgrade changes no owner.
pub const FIELD_MANAGER: &str = WEBHOOK;

const KEY: &str = "ca";
/// The longest time between two reconciliations, without any event of the watches.
const INTERVAL: Duration = Duration::from_secs(30);
/// The shortest pause between two reconciliations.
const MIN_PAUSE: Duration = Duration::from_millis(200);
/// The pause after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// Timeout of one reconciliation.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for API servers to notice a new `caBundle`, while there is a certificate that can still be served.
const BUNDLE_PROPAGATION: Duration = Duration::from_secs(2);

/// Why publishing failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another replica wrote first.
    #[error("{0} was changed concurrently")]
    Conflict(&'static str),
    /// The API server refused or was unreachable.
    #[error("cannot {what}")]
    Api {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
    /// The API server refused a Secret or was unreachable.
    #[error("cannot write {what}")]
    Write {
        /// The object that was written.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
    /// The API server accepted `caBundle`, but stored another value.
    #[error(
        "caBundle of {0} countersign was written and is not there: another admission controller removes it; exempt it"
    )]
    NotInPlace(&'static str),
    /// The CA failed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The API server did not answer in time.
    #[error("the API server has not answered within {RECONCILE_TIMEOUT:?}")]
    Timeout,
}

/// The controller of the webhook's CA.
pub struct Publisher {
    secrets: Api<Secret>,
    secret_metadata: Api<PartialObjectMeta<Secret>>,
    configurations: Configurations,
    names: Vec<String>,
    periods: ValidityPeriods,
    health: PathBuf,
}

/// The names by which API servers call the webhook; the first is the one they verify.
#[must_use]
pub fn names(namespace: &str, service: &str) -> Vec<String> {
    let name = service_name(service, namespace);
    vec![name.clone(), format!("{name}.cluster.local")]
}

impl Publisher {
    /// For the webhook behind `service` in `namespace`. Its health is written to the file `health`.
    #[must_use]
    pub fn new(client: Client, (namespace, service): (&str, &str), periods: ValidityPeriods, health: PathBuf) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            secret_metadata: Api::namespaced(client.clone(), namespace),
            configurations: Configurations::new(client),
            names: names(namespace, service),
            periods,
            health,
        }
    }

    /// Reconciles for as long as the program runs.
    pub async fn run(self) {
        let mut changes = std::pin::pin!(self.changes());
        let mut in_place_at = None;
        loop {
            let result = timeout(RECONCILE_TIMEOUT, self.reconcile(Timestamp::now()))
                .await
                .unwrap_or(Err(PublishError::Timeout));
            let reconciled_at = Timestamp::now();
            let (pause, problem) = match result {
                Ok(pause) => {
                    in_place_at = Some(reconciled_at);
                    (pause, None)
                }
                Err(PublishError::Conflict(what)) => {
                    tracing::debug!(what, "another replica was first; reconciling again");
                    (MIN_PAUSE, Some(PublishError::Conflict(what).to_string()))
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "the webhook's certificates are not up to date; trying again");
                    (RETRY_DELAY, Some(error.to_string()))
                }
            };
            if let Err(error) = (Health { reconciled_at, in_place_at, problem }).write(&self.health) {
                tracing::error!(%error, file = %self.health.display(), "cannot write the health file");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Some(()) = changes.next() => {}
            }
        }
    }

    /// Events of all objects that are read: applied manifests, other replicas, manual changes.
    fn changes(&self) -> impl Stream<Item = ()> + Send + 'static {
        let secrets = stream::select(
            changes_of(self.secret_metadata.clone(), SECRET),
            changes_of(self.secret_metadata.clone(), SERVING_SECRET),
        );
        stream::select(secrets, self.configurations.changes())
    }

    /// Returns the time until the next reconciliation.
    async fn reconcile(&self, now: Timestamp) -> Result<Duration, PublishError> {
        loop {
            let observed = self.configurations.observe().await?;
            let what = "read Secret countersign-webhook-tls";
            let served =
                self.secrets.get_opt(SERVING_SECRET).await.map_err(|source| PublishError::Api { what, source })?;
            let what = "read Secret countersign-webhook-ca";
            let mut secret = self.secrets.get_opt(SECRET).await.map_err(|source| PublishError::Api { what, source })?;
            let state = stored(secret.as_ref());
            secret.iter_mut().for_each(wipe);
            let state = state?;
            match ca::next(&state, self.periods, now) {
                Plan::Keep => return self.publish(&observed, served, &state, now).await,
                plan => {
                    tracing::info!(?plan, "changing the webhook's CA");
                    let data = BTreeMap::from([(
                        KEY.to_owned(),
                        ByteString(state.after(&plan, self.periods, now)?.to_bytes().to_vec()),
                    )]);
                    let what = "Secret countersign-webhook-ca";
                    self.store(secret, (SECRET, SECRET_TYPE), data, what).await?;
                }
            }
        }
    }

    /// Sets `caBundle` first; then stores a certificate that it verifies.
    async fn publish(
        &self,
        observed: &Observed,
        secret: Option<Secret>,
        state: &CaState,
        now: Timestamp,
    ) -> Result<Duration, PublishError> {
        let bundle = state.bundle();
        let changed = self.configurations.set(observed, &ByteString(bundle.clone().into_bytes())).await?;
        if changed {
            tracing::info!(authorities = state.authorities.len(), "caBundle is set");
        }
        let served = match served(secret.as_ref(), &self.names, state, now) {
            Some(served) if !state.is_due(&served, now) => served,
            Some(served) if changed && served.verify(&bundle, now).is_ok() => return Ok(BUNDLE_PROPAGATION),
            _ => {
                let IssuedCertificate { certificate, key, served } = state.issue(&self.names, now)?;
                for name in &self.names {
                    served.verify_for(&bundle, name, now)?;
                }
                let entry = |key: &str, pem: &str| (key.to_owned(), ByteString(pem.as_bytes().to_vec()));
                let data = BTreeMap::from([entry(serving::CHAIN, &certificate), entry(serving::KEY, &key)]);
                let what = "Secret countersign-webhook-tls";
                self.store(secret, (SERVING_SECRET, serving::TYPE), data, what).await?;
                tracing::info!(renew_at = %served.renew_at, not_after = %served.not_after, "a serving certificate is issued");
                served
            }
        };
        let next = ca::next_event(state, self.periods, &served, now);
        Ok(Duration::try_from(now.duration_until(next)).unwrap_or_default().clamp(MIN_PAUSE, INTERVAL))
    }

    /// Replaces the version that was read, or creates the Secret.
    async fn store(
        &self,
        before: Option<Secret>,
        (name, kind): (&str, &str),
        data: BTreeMap<String, ByteString>,
        what: &'static str,
    ) -> Result<(), PublishError> {
        let parameters = PostParams::default();
        let result = match before {
            Some(mut secret) => {
                wipe(&mut secret);
                secret.data = Some(data);
                let result = self.secrets.replace(name, &parameters, &secret).await;
                wipe(&mut secret);
                result
            }
            None => {
                let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
                let mut secret =
                    Secret { metadata, data: Some(data), type_: Some(kind.to_owned()), ..Secret::default() };
                let result = self.secrets.create(&parameters, &secret).await;
                wipe(&mut secret);
                result
            }
        };
        match result {
            Ok(mut stored) => {
                wipe(&mut stored);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Err(PublishError::Conflict(what)),
            Err(source) => Err(PublishError::Write { what, source }),
        }
    }
}

/// Changes of the named object. Without permission to watch (a role of an earlier release) only [`INTERVAL`] applies.
fn changes_of<K>(api: Api<PartialObjectMeta<K>>, name: &str) -> impl Stream<Item = ()> + Send + Unpin + 'static + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(api, config).default_backoff();
    events.filter_map(|event| std::future::ready(event.ok().map(drop))).boxed()
}

/// Zeroizes the keys in a Secret.
fn wipe(secret: &mut Secret) {
    secret.data.iter_mut().flat_map(BTreeMap::values_mut).for_each(|value| value.0.zeroize());
}

fn stored(secret: Option<&Secret>) -> Result<CaState, CaError> {
    let Some(secret) = secret else { return Ok(CaState::default()) };
    let bytes = secret.data.as_ref().and_then(|data| data.get(KEY)).ok_or(CaError::Damaged("it has no key `ca`"))?;
    CaState::from_bytes(&bytes.0)
}

/// The stored certificate; `None` if it cannot be served and must be replaced.
fn served(secret: Option<&Secret>, names: &[String], state: &CaState, now: Timestamp) -> Option<ServedCertificate> {
    let stored = StoredCertificate::stored(secret?);
    let checked = stored.and_then(|stored| names.iter().try_for_each(|name| stored.check(name, now)).map(|()| stored));
    match checked {
        Ok(stored) => Some(state.served(&stored, now)),
        Err(error) => {
            tracing::warn!(%error, "the stored serving certificate is replaced");
            None
        }
    }
}
