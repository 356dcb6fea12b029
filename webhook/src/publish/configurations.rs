//! Reads `caBundle` of both webhook configurations and sets it where it differs. Nothing else in them is changed.

use countersign_contract::objects::WEBHOOK_CONFIGURATION as CONFIGURATION;
use futures::{Stream, stream};
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
};
use kube::{
    Api, Client,
    api::{PartialObjectMeta, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{FIELD_MANAGER, PublishError, changes_of};

const MUTATING: &str = "MutatingWebhookConfiguration";
const VALIDATING: &str = "ValidatingWebhookConfiguration";

/// Both configurations of the API server.
pub(super) struct Configurations {
    client: Client,
    mutating: Api<MutatingWebhookConfiguration>,
    validating: Api<ValidatingWebhookConfiguration>,
}

/// Both as they were read.
pub(super) struct Observed {
    mutating: Found,
    validating: Found,
}

/// The part of a configuration that is read.
#[derive(Clone, Debug, Default, PartialEq)]
struct Found {
    /// The resourceVersion that a write refers to.
    version: Option<String>,
    /// Name and `caBundle` of each entry.
    entries: Vec<(String, Option<ByteString>)>,
}

impl Configurations {
    pub(super) fn new(client: Client) -> Self {
        Self { mutating: Api::all(client.clone()), validating: Api::all(client.clone()), client }
    }

    pub(super) fn changes(&self) -> impl Stream<Item = ()> + Send + Unpin + 'static {
        let mutating = Api::<PartialObjectMeta<MutatingWebhookConfiguration>>::all(self.client.clone());
        let validating = Api::<PartialObjectMeta<ValidatingWebhookConfiguration>>::all(self.client.clone());
        stream::select(changes_of(mutating, CONFIGURATION), changes_of(validating, CONFIGURATION))
    }

    pub(super) async fn observe(&self) -> Result<Observed, PublishError> {
        let failed = |what| move |source| PublishError::Api { what, source };
        let mutating = self.mutating.get(CONFIGURATION);
        let mutating = mutating.await.map_err(failed("read MutatingWebhookConfiguration countersign"))?;
        let validating = self.validating.get(CONFIGURATION);
        let validating = validating.await.map_err(failed("read ValidatingWebhookConfiguration countersign"))?;
        Ok(Observed { mutating: mutating.into(), validating: validating.into() })
    }

    /// Sets `caBundle` where it differs; returns whether anything was written.
    pub(super) async fn set(&self, observed: &Observed, bundle: &ByteString) -> Result<bool, PublishError> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let mutating = patch(MUTATING, &observed.mutating, bundle);
        if let Some(patch) = &mutating {
            let now = self.mutating.patch(CONFIGURATION, &params, &Patch::Apply(patch)).await;
            written(MUTATING, "set caBundle of MutatingWebhookConfiguration countersign", now, bundle)?;
        }
        let validating = patch(VALIDATING, &observed.validating, bundle);
        if let Some(patch) = &validating {
            let now = self.validating.patch(CONFIGURATION, &params, &Patch::Apply(patch)).await;
            written(VALIDATING, "set caBundle of ValidatingWebhookConfiguration countersign", now, bundle)?;
        }
        Ok(mutating.is_some() || validating.is_some())
    }
}

fn written(
    kind: &'static str,
    what: &'static str,
    result: Result<impl Into<Found>, kube::Error>,
    bundle: &ByteString,
) -> Result<(), PublishError> {
    match result.map(Into::into) {
        Ok(now) if in_place(&now, bundle) => Ok(()),
        Ok(_) => Err(PublishError::NotInPlace(kind)),
        Err(kube::Error::Api(status)) if status.code == 409 => Err(PublishError::Conflict(kind)),
        Err(source) => Err(PublishError::Api { what, source }),
    }
}

fn in_place(found: &Found, bundle: &ByteString) -> bool {
    found.entries.iter().all(|(_, found)| found.as_ref() == Some(bundle))
}

/// A patch that sets only `caBundle`, of the version that was read; `None` if it is in place.
fn patch(kind: &str, found: &Found, bundle: &ByteString) -> Option<Value> {
    if in_place(found, bundle) {
        return None;
    }
    let entries = found.entries.iter().map(|(name, _)| json!({ "name": name, "clientConfig": { "caBundle": bundle } }));
    Some(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": { "name": CONFIGURATION, "resourceVersion": found.version },
        "webhooks": entries.collect::<Vec<_>>(),
    }))
}

impl From<MutatingWebhookConfiguration> for Found {
    fn from(read: MutatingWebhookConfiguration) -> Self {
        let entries = read.webhooks.unwrap_or_default().into_iter();
        Self {
            version: read.metadata.resource_version,
            entries: entries.map(|entry| (entry.name, entry.client_config.ca_bundle)).collect(),
        }
    }
}

impl From<ValidatingWebhookConfiguration> for Found {
    fn from(read: ValidatingWebhookConfiguration) -> Self {
        let entries = read.webhooks.unwrap_or_default().into_iter();
        Self {
            version: read.metadata.resource_version,
            entries: entries.map(|entry| (entry.name, entry.client_config.ca_bundle)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ca_bundle_is_owned_only_a_difference_is_written_and_only_to_what_was_read() {
        let new = ByteString(b"new".to_vec());
        let version = Some("7".to_owned());
        let same = Found { version: version.clone(), entries: vec![("a".to_owned(), Some(new.clone()))] };
        assert_eq!(patch(MUTATING, &same, &new), None);
        let differs = Found { version, entries: vec![("a".to_owned(), Some(new.clone())), ("b".to_owned(), None)] };
        let patch = patch(MUTATING, &differs, &new).unwrap();
        assert_eq!(patch["metadata"], json!({ "name": "countersign", "resourceVersion": "7" }));
        assert_eq!(
            patch["webhooks"],
            json!([
                { "name": "a", "clientConfig": { "caBundle": "bmV3" } },
                { "name": "b", "clientConfig": { "caBundle": "bmV3" } },
            ])
        );
    }

    #[test]
    fn a_bundle_that_another_took_away_again_is_an_error() {
        let new = ByteString(b"new".to_vec());
        let without = Found { version: None, entries: vec![("a".to_owned(), None)] };
        let error = written(MUTATING, "set caBundle", Ok(without), &new).unwrap_err();
        assert!(matches!(error, PublishError::NotInPlace(MUTATING)), "{error}");
    }
}
