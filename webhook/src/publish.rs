//! The controller of the webhook's CA. Observe, decide, apply for the Secret of the CA, `caBundle` of both configurations, and
//! the Secret of the serving certificate. Several replicas do this at once: each object is fenced by its resourceVersion, and
//! all are read before the CA's Secret. A replica that saw an older CA cannot write an older `caBundle` or certificate.
//!
//! It is a program of its own, with an account of its own and no port: whoever takes over the process that answers admission
//! requests can neither change the configurations nor write a Secret.

mod configurations;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

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
    ca::{self, CaError, CaState, Lives, Plan, Served, Serving},
    health::Health,
    serving::{self, ServingCertificate},
};
use configurations::{Configurations, Observed};

/// The Secret of the CA.
pub const SECRET: &str = "countersign-webhook-ca";
/// The name of both configurations.
pub const CONFIGURATION: &str = "countersign";
/// The type of the CA's Secret.
pub const SECRET_TYPE: &str = "countersign.dev/webhook-ca";
/// Who owns `caBundle`. Of earlier releases it was the webhook itself: kept, so that an upgrade changes no owner.
pub const FIELD_MANAGER: &str = "countersign-webhook";

const KEY: &str = "ca";
/// How often the Secrets and the configurations are looked at, were all watches silent.
const INTERVAL: Duration = Duration::from_secs(30);
/// The shortest pause between two looks.
const LEAST: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(2);
/// How long one look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(60);
/// How long API servers are given to notice a `caBundle` that was just written, while there is a certificate to go on with.
const NOTICED: Duration = Duration::from_secs(2);

/// Why publishing failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another replica wrote first.
    #[error("another changed {0} first")]
    Raced(&'static str),
    /// The API server refused or was not there.
    #[error("cannot {what}")]
    Api {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
    /// The API server refused a Secret or was not there.
    #[error("cannot write {what}")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
    /// The API server took `caBundle`, but has another.
    #[error(
        "caBundle of {0} countersign was written and is not there: another admission controller removes it; exempt it"
    )]
    NotInPlace(&'static str),
    /// The CA failed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The API server did not answer.
    #[error("the API server has not answered within {LOOK_WITHIN:?}")]
    Late,
}

/// What is needed to publish.
pub struct Publisher {
    secrets: Api<Secret>,
    touched: Api<PartialObjectMeta<Secret>>,
    configurations: Configurations,
    names: Vec<String>,
    lives: Lives,
    health: PathBuf,
}

/// The names by which API servers call the webhook, that which they verify first.
#[must_use]
pub fn names(namespace: &str, service: &str) -> Vec<String> {
    vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")]
}

impl Publisher {
    /// For the webhook behind `service` in `namespace`; how it fares is written to the file `health`.
    #[must_use]
    pub fn new(client: Client, (namespace, service): (&str, &str), lives: Lives, health: PathBuf) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            touched: Api::namespaced(client.clone(), namespace),
            configurations: Configurations::new(client),
            names: names(namespace, service),
            lives,
            health,
        }
    }

    /// Publishes for as long as the program runs.
    pub async fn run(self) {
        let mut changes = std::pin::pin!(self.changes());
        let mut in_place_at = None;
        loop {
            let looked = timeout(LOOK_WITHIN, self.once(Timestamp::now())).await.unwrap_or(Err(PublishError::Late));
            let looked_at = Timestamp::now();
            let (pause, problem) = match looked {
                Ok(pause) => {
                    in_place_at = Some(looked_at);
                    (pause, None)
                }
                Err(PublishError::Raced(what)) => {
                    tracing::debug!(what, "another replica was first; looking again");
                    (LEAST, Some(PublishError::Raced(what).to_string()))
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "the webhook's certificates are not up to date; trying again");
                    (RETRY, Some(error.to_string()))
                }
            };
            if let Err(error) = (Health { looked_at, in_place_at, problem }).write(&self.health) {
                tracing::error!(%error, file = %self.health.display(), "cannot write what probes read");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Some(()) = changes.next() => {}
            }
        }
    }

    /// Whenever another writes what this reads: manifests applied again, another replica, a person.
    fn changes(&self) -> impl Stream<Item = ()> + Send + 'static {
        let secrets =
            stream::select(touched(self.touched.clone(), SECRET), touched(self.touched.clone(), serving::SECRET));
        stream::select(secrets, self.configurations.changes())
    }

    /// Returns when to look again.
    async fn once(&self, now: Timestamp) -> Result<Duration, PublishError> {
        loop {
            let observed = self.configurations.observe().await?;
            let what = "read Secret countersign-webhook-tls";
            let served =
                self.secrets.get_opt(serving::SECRET).await.map_err(|source| PublishError::Api { what, source })?;
            let what = "read Secret countersign-webhook-ca";
            let mut secret = self.secrets.get_opt(SECRET).await.map_err(|source| PublishError::Api { what, source })?;
            let state = stored(secret.as_ref());
            secret.iter_mut().for_each(wipe);
            let state = state?;
            match ca::next(&state, self.lives, now) {
                Plan::Keep => return self.publish(&observed, served, &state, now).await,
                plan => {
                    tracing::info!(?plan, "changing the webhook's CA");
                    let data = BTreeMap::from([(
                        KEY.to_owned(),
                        ByteString(state.after(&plan, self.lives, now)?.to_bytes().to_vec()),
                    )]);
                    let what = "Secret countersign-webhook-ca";
                    self.store(secret, (SECRET, SECRET_TYPE), data, what).await?;
                }
            }
        }
    }

    /// `caBundle` first; then a certificate that it verifies.
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
            Some(served) if changed && served.verify(&bundle, now).is_ok() => return Ok(NOTICED),
            _ => {
                let Serving { certificate, key, served } = state.issue(&self.names, now)?;
                for name in &self.names {
                    served.verify_for(&bundle, name, now)?;
                }
                let entry = |key: &str, pem: &str| (key.to_owned(), ByteString(pem.as_bytes().to_vec()));
                let data = BTreeMap::from([entry(serving::CHAIN, &certificate), entry(serving::KEY, &key)]);
                let what = "Secret countersign-webhook-tls";
                self.store(secret, (serving::SECRET, serving::TYPE), data, what).await?;
                tracing::info!(renew_at = %served.renew_at, not_after = %served.not_after, "a serving certificate is issued");
                served
            }
        };
        let next = ca::next_event(state, self.lives, &served, now);
        Ok(Duration::try_from(now.duration_until(next)).unwrap_or_default().clamp(LEAST, INTERVAL))
    }

    /// Writes over the version that was read.
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
            Err(kube::Error::Api(status)) if status.code == 409 => Err(PublishError::Raced(what)),
            Err(source) => Err(PublishError::Write { what, source }),
        }
    }
}

/// Whenever the object of this name is written. Without it (a role of an earlier release) there still are the intervals.
fn touched<K>(api: Api<PartialObjectMeta<K>>, name: &str) -> impl Stream<Item = ()> + Send + Unpin + 'static + use<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(api, config).default_backoff();
    events.filter_map(|event| std::future::ready(event.ok().map(drop))).boxed()
}

/// Overwrites the keys that a Secret holds.
fn wipe(secret: &mut Secret) {
    secret.data.iter_mut().flat_map(BTreeMap::values_mut).for_each(|value| value.0.zeroize());
}

fn stored(secret: Option<&Secret>) -> Result<CaState, CaError> {
    let Some(secret) = secret else { return Ok(CaState::default()) };
    let bytes = secret.data.as_ref().and_then(|data| data.get(KEY)).ok_or(CaError::Damaged("it has no key `ca`"))?;
    CaState::from_bytes(&bytes.0)
}

/// What is known of the certificate that is stored; none if it cannot be served, and so is issued anew.
fn served(secret: Option<&Secret>, names: &[String], state: &CaState, now: Timestamp) -> Option<Served> {
    let stored = ServingCertificate::stored(secret?);
    let checked = stored.and_then(|stored| names.iter().try_for_each(|name| stored.check(name, now)).map(|()| stored));
    match checked {
        Ok(stored) => Some(state.served(&stored, now)),
        Err(error) => {
            tracing::warn!(%error, "another serving certificate is issued");
            None
        }
    }
}
