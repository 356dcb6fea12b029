//! Observe, decide, apply for the webhook's CA: the Secret, `caBundle` of both configurations, and the certificate this
//! replica serves with. Several replicas do this at once: the Secret is fenced by its resourceVersion, and so is each
//! configuration, which is read before the Secret. A replica that saw an older Secret cannot write an older `caBundle`.

mod configurations;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, Resource,
    api::{ObjectMeta, PartialObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;
use zeroize::Zeroize as _;

use crate::{
    ca::{self, CaError, CaState, Lives, Plan, Served},
    metrics::CertificateMetrics,
    tls::Certificate,
};
use configurations::{Configurations, Observed};

/// The Secret of the CA.
pub const SECRET: &str = "countersign-webhook-ca";
/// The name of both configurations.
pub const CONFIGURATION: &str = "countersign";
/// Who owns `caBundle`.
pub const FIELD_MANAGER: &str = "countersign-webhook";

const KEY: &str = "ca";
/// How often the Secret and the configurations are looked at, were all watches silent.
const INTERVAL: Duration = Duration::from_secs(30);
/// The shortest pause between two looks.
const LEAST: Duration = Duration::from_millis(200);
const RETRY: Duration = Duration::from_secs(2);
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
    /// The API server took `caBundle`, but has another.
    #[error(
        "caBundle of {0} countersign was written and is not there: another admission controller removes it; exempt it"
    )]
    NotInPlace(&'static str),
    /// The CA failed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The certificate cannot be served.
    #[error("the serving certificate cannot be used")]
    Tls(#[from] rustls::Error),
}

/// What is needed to publish.
pub struct Publisher {
    secrets: Api<Secret>,
    touched: Api<PartialObjectMeta<Secret>>,
    configurations: Configurations,
    names: Vec<String>,
    lives: Lives,
    certificate: Arc<Certificate>,
    served: Option<Served>,
    metrics: CertificateMetrics,
}

impl Publisher {
    /// For the webhook behind `service` in `namespace`, serving with `certificate`.
    #[must_use]
    pub fn new(
        client: Client,
        (namespace, service): (&str, &str),
        lives: Lives,
        certificate: Arc<Certificate>,
        metrics: CertificateMetrics,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            touched: Api::namespaced(client.clone(), namespace),
            configurations: Configurations::new(client),
            names: vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")],
            lives,
            certificate,
            served: None,
            metrics,
        }
    }

    /// Publishes for as long as the program runs. `until` is when what is served ends; `None` before the first success.
    pub async fn run(mut self, until: watch::Sender<Option<Timestamp>>) {
        let mut changes = std::pin::pin!(self.changes());
        loop {
            let pause = match self.once(Timestamp::now()).await {
                Ok(pause) => {
                    until.send_replace(self.served.as_ref().map(|served| served.not_after));
                    pause
                }
                Err(PublishError::Raced(what)) => {
                    tracing::debug!(what, "another replica was first; looking again");
                    LEAST
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "the webhook's certificates are not up to date; trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Some(()) = changes.next() => {}
            }
        }
    }

    /// Whenever another writes what this reads: manifests applied again, another replica, a person.
    fn changes(&self) -> impl Stream<Item = ()> + Send + 'static {
        stream::select(touched(self.touched.clone(), SECRET), self.configurations.changes())
    }

    /// Returns when to look again.
    async fn once(&mut self, now: Timestamp) -> Result<Duration, PublishError> {
        loop {
            let observed = self.configurations.observe().await?;
            let what = "read Secret countersign-webhook-ca";
            let mut secret = self.secrets.get_opt(SECRET).await.map_err(|source| PublishError::Api { what, source })?;
            let state = stored(secret.as_ref());
            secret.iter_mut().for_each(wipe);
            let state = state?;
            match ca::next(&state, self.lives, now) {
                Plan::Keep => return self.publish(&observed, &state, now).await,
                plan => {
                    tracing::info!(?plan, "changing the webhook's CA");
                    self.store(secret, &state.after(&plan, self.lives, now)?).await?;
                }
            }
        }
    }

    /// `caBundle` first; then a certificate that it verifies.
    async fn publish(
        &mut self,
        observed: &Observed,
        state: &CaState,
        now: Timestamp,
    ) -> Result<Duration, PublishError> {
        let bundle = state.bundle();
        let changed = self.configurations.set(observed, &ByteString(bundle.clone().into_bytes())).await?;
        self.metrics.authorities(state.authorities.len());
        let served = match self.served.take() {
            Some(served) if !state.is_due(&served, now) => served,
            Some(served) if changed && served.verify(&bundle, now).is_ok() => {
                self.served = Some(served);
                return Ok(NOTICED);
            }
            _ => {
                let serving = state.issue(&self.names, now)?;
                for name in &self.names {
                    serving.verify(&bundle, name, now)?;
                }
                let served = serving.served.clone();
                self.certificate.publish(&serving)?;
                self.metrics.expires(served.not_after);
                tracing::info!(renew_at = %served.renew_at, "serving with a new certificate");
                served
            }
        };
        let next = ca::next_event(state, self.lives, &served, now);
        self.served = Some(served);
        Ok(Duration::try_from(now.duration_until(next)).unwrap_or_default().clamp(LEAST, INTERVAL))
    }

    async fn store(&self, before: Option<Secret>, state: &CaState) -> Result<(), PublishError> {
        let data = BTreeMap::from([(KEY.to_owned(), ByteString(state.to_bytes().to_vec()))]);
        let result = match before {
            Some(mut secret) => {
                secret.data = Some(data);
                let result = self.secrets.replace(SECRET, &PostParams::default(), &secret).await;
                wipe(&mut secret);
                result
            }
            None => {
                let metadata = ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() };
                let mut secret = Secret {
                    metadata,
                    data: Some(data),
                    type_: Some("countersign.dev/webhook-ca".to_owned()),
                    ..Secret::default()
                };
                let result = self.secrets.create(&PostParams::default(), &secret).await;
                wipe(&mut secret);
                result
            }
        };
        match result {
            Ok(mut stored) => {
                wipe(&mut stored);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Err(PublishError::Raced("Secret countersign-webhook-ca"))
            }
            Err(source) => Err(PublishError::Api { what: "write Secret countersign-webhook-ca", source }),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_secret_are_wiped() {
        let data = BTreeMap::from([(KEY.to_owned(), ByteString(b"key".to_vec()))]);
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        wipe(&mut secret);
        assert!(secret.data.unwrap()[KEY].0.is_empty());
    }

    #[test]
    fn a_secret_without_its_key_is_damaged_and_not_overwritten() {
        assert!(stored(Some(&Secret::default())).is_err());
        assert_eq!(stored(None).unwrap(), CaState::default());
    }
}
