//! Observe, decide, apply for the webhook's CA: the Secret, `caBundle` of both configurations, and the certificate this
//! replica serves with. Several replicas do this at once: the Secret is fenced by its resourceVersion.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Secret,
    },
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    ca::{self, CaError, CaState, Plan},
    tls::Certificate,
};

/// The Secret of the CA.
pub const SECRET: &str = "countersign-webhook-ca";
/// The name of both configurations.
pub const CONFIGURATION: &str = "countersign";
/// Who owns `caBundle`.
pub const FIELD_MANAGER: &str = "countersign-webhook";

const KEY: &str = "ca";
/// How often the Secret and the configurations are looked at. Far less than a prepared authority waits.
const INTERVAL: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);

/// Why publishing failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another replica wrote first.
    #[error("another replica changed Secret {SECRET} first")]
    Raced,
    /// The API server refused or was not there.
    #[error("cannot {what}")]
    Api {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: kube::Error,
    },
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
    mutating: Api<MutatingWebhookConfiguration>,
    validating: Api<ValidatingWebhookConfiguration>,
    names: Vec<String>,
    certificate: Arc<Certificate>,
    renew_at: Option<Timestamp>,
}

impl Publisher {
    /// For the webhook behind `service` in `namespace`, serving with `certificate`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, service: &str, certificate: Arc<Certificate>) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            mutating: Api::all(client.clone()),
            validating: Api::all(client),
            names: vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")],
            certificate,
            renew_at: None,
        }
    }

    /// Publishes for as long as the program runs; `published` turns true with the first success.
    pub async fn run(mut self, published: watch::Sender<bool>) {
        loop {
            let pause = match self.once(Timestamp::now()).await {
                Ok(()) => {
                    published.send_replace(true);
                    INTERVAL
                }
                Err(PublishError::Raced) => Duration::from_millis(100),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "the webhook's certificates are not up to date; trying again");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&mut self, now: Timestamp) -> Result<(), PublishError> {
        let state = self.state(now).await?;
        self.configure(&state).await?;
        if self.renew_at.is_none_or(|renew_at| now >= renew_at) {
            let serving = state.issue(&self.names, now)?;
            let renew_at = serving.renew_at;
            self.certificate.publish(serving)?;
            self.renew_at = Some(renew_at);
            tracing::info!(%renew_at, "serving with a new certificate");
        }
        Ok(())
    }

    /// What is stored, once there is nothing left to change.
    async fn state(&mut self, now: Timestamp) -> Result<CaState, PublishError> {
        loop {
            let what = "read Secret countersign-webhook-ca";
            let secret = self.secrets.get_opt(SECRET).await.map_err(|source| PublishError::Api { what, source })?;
            let state = stored(secret.as_ref())?;
            let plan = ca::next(&state, now);
            if plan == Plan::Keep {
                return Ok(state);
            }
            tracing::info!(?plan, "changing the webhook's CA");
            if matches!(plan, Plan::Add { signs_from } if signs_from <= now) {
                // What is served was signed by an authority that is gone.
                self.renew_at = None;
            }
            self.store(secret, &state.after(plan, now)?).await?;
        }
    }

    async fn store(&self, before: Option<Secret>, state: &CaState) -> Result<(), PublishError> {
        let data = BTreeMap::from([(KEY.to_owned(), ByteString(state.to_bytes()))]);
        let result = match before {
            Some(mut secret) => {
                secret.data = Some(data);
                self.secrets.replace(SECRET, &PostParams::default(), &secret).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() };
                let secret = Secret {
                    metadata,
                    data: Some(data),
                    type_: Some("countersign.dev/webhook-ca".to_owned()),
                    ..Secret::default()
                };
                self.secrets.create(&PostParams::default(), &secret).await
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Err(PublishError::Raced),
            Err(source) => Err(PublishError::Api { what: "write Secret countersign-webhook-ca", source }),
        }
    }

    async fn configure(&self, state: &CaState) -> Result<(), PublishError> {
        let bundle = ByteString(state.bundle().into_bytes());
        let failed = |what| move |source| PublishError::Api { what, source };
        let params = PatchParams::apply(FIELD_MANAGER).force();

        let what = "read MutatingWebhookConfiguration countersign";
        let found = self.mutating.get(CONFIGURATION).await.map_err(failed(what))?;
        let webhooks = found
            .webhooks
            .unwrap_or_default()
            .into_iter()
            .map(|webhook| (webhook.name, webhook.client_config.ca_bundle));
        if let Some(patch) = patch("MutatingWebhookConfiguration", webhooks, &bundle) {
            let what = "set caBundle of MutatingWebhookConfiguration countersign";
            self.mutating.patch(CONFIGURATION, &params, &Patch::Apply(patch)).await.map_err(failed(what))?;
        }

        let what = "read ValidatingWebhookConfiguration countersign";
        let found = self.validating.get(CONFIGURATION).await.map_err(failed(what))?;
        let webhooks = found
            .webhooks
            .unwrap_or_default()
            .into_iter()
            .map(|webhook| (webhook.name, webhook.client_config.ca_bundle));
        if let Some(patch) = patch("ValidatingWebhookConfiguration", webhooks, &bundle) {
            let what = "set caBundle of ValidatingWebhookConfiguration countersign";
            self.validating.patch(CONFIGURATION, &params, &Patch::Apply(patch)).await.map_err(failed(what))?;
        }
        Ok(())
    }
}

fn stored(secret: Option<&Secret>) -> Result<CaState, CaError> {
    let Some(secret) = secret else { return Ok(CaState::default()) };
    let bytes = secret.data.as_ref().and_then(|data| data.get(KEY)).ok_or(CaError::Damaged("it has no key `ca`"))?;
    CaState::from_bytes(&bytes.0)
}

/// What sets `caBundle` where it differs, and nothing else; none if it differs nowhere.
fn patch(
    kind: &str,
    webhooks: impl Iterator<Item = (String, Option<ByteString>)>,
    bundle: &ByteString,
) -> Option<Value> {
    let webhooks: Vec<_> = webhooks.collect();
    if webhooks.iter().all(|(_, found)| found.as_ref() == Some(bundle)) {
        return None;
    }
    let webhooks: Vec<Value> =
        webhooks.into_iter().map(|(name, _)| json!({ "name": name, "clientConfig": { "caBundle": bundle } })).collect();
    Some(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": { "name": CONFIGURATION },
        "webhooks": webhooks,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ca_bundle_is_owned_and_only_a_difference_is_written() {
        let new = ByteString(b"new".to_vec());
        let same = [("a".to_owned(), Some(new.clone()))];
        assert_eq!(patch("MutatingWebhookConfiguration", same.into_iter(), &new), None);
        let differs = [("a".to_owned(), Some(new.clone())), ("b".to_owned(), None)];
        let patch = patch("MutatingWebhookConfiguration", differs.into_iter(), &new).unwrap();
        assert_eq!(
            patch["webhooks"],
            json!([
                { "name": "a", "clientConfig": { "caBundle": "bmV3" } },
                { "name": "b", "clientConfig": { "caBundle": "bmV3" } },
            ])
        );
    }

    #[test]
    fn a_secret_without_its_key_is_damaged_and_not_overwritten() {
        assert!(stored(Some(&Secret::default())).is_err());
        assert_eq!(stored(None).unwrap(), CaState::default());
    }
}
