//! Journals in Secrets, written under the fence of their resourceVersion: of two replicas that write at the same time one
//! finds a conflict, and looks again.

use std::collections::BTreeMap;

use countersign_contract::{
    metadata::annotation::TRUST_DOMAIN_UID,
    objects::journal::{KEY, SECRET_TYPE},
};
use countersign_core::journal::{Format, Journal, JournalError};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use zeroize::{Zeroize as _, Zeroizing};

use super::journal_cache::StoredSecret;

/// Why a journal could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone else wrote it meanwhile.
    #[error("Secret {name} was changed by another; looking again")]
    Conflict {
        /// The Secret's name.
        name: String,
    },
    /// The journal has no stored form.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The Secret of this name is not ours.
    #[error("Secret {name} exists and is of type {found:?}, not {SECRET_TYPE}: it will not be overwritten; remove it")]
    NotOurs {
        /// The Secret's name.
        name: String,
        /// Its type.
        found: String,
    },
    /// The API server did not do it.
    #[error("Secret {name}: {source}")]
    Kube {
        /// The Secret's name.
        name: String,
        /// What the client said.
        source: Box<kube::Error>,
    },
}

/// The journals' Secrets.
#[derive(Clone)]
pub struct JournalStore {
    secrets: Api<Secret>,
    format: Format,
}

impl JournalStore {
    /// The Secrets of `namespace`. Journals are written in `format`, or in the later one in which they were read.
    #[must_use]
    pub fn new(client: Client, namespace: &str, format: Format) -> Self {
        Self { secrets: Api::namespaced(client, namespace), format }
    }

    /// A journal's Secret as it is stored now.
    ///
    /// # Errors
    /// When it cannot be read, or is not of our type.
    pub async fn read(&self, name: &str) -> Result<Option<StoredSecret>, StoreError> {
        let secret = self.secrets.get_opt(name).await.map_err(|error| failed(name, error))?;
        let Some(secret) = secret else { return Ok(None) };
        match secret.type_.as_deref() {
            Some(SECRET_TYPE) => Ok(Some(secret.into())),
            other => Err(StoreError::NotOurs { name: name.to_owned(), found: other.unwrap_or_default().to_owned() }),
        }
    }

    /// Stores a journal: a new Secret when `over` is `None`, else in place of exactly that version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another was faster.
    pub async fn write(
        &self,
        name: &str,
        owner: Option<&str>,
        journal: &Journal,
        over: Option<&StoredSecret>,
    ) -> Result<StoredSecret, StoreError> {
        let bytes = journal.clone().written_in(self.format).to_bytes()?;
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                resource_version: over.map(|secret| secret.resource_version.clone()),
                annotations: owner.map(|uid| BTreeMap::from([(TRUST_DOMAIN_UID.to_owned(), uid.to_owned())])),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(bytes.to_vec()))])),
            ..Secret::default()
        };
        let parameters = PostParams::default();
        let written = match over {
            None => self.secrets.create(&parameters, &secret).await,
            Some(_) => self.secrets.replace(name, &parameters, &secret).await,
        };
        wipe(&mut secret);
        written.map(StoredSecret::from).map_err(|error| failed(name, error))
    }
}

impl std::fmt::Debug for JournalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JournalStore")
    }
}

impl From<Secret> for StoredSecret {
    fn from(mut secret: Secret) -> Self {
        let annotations = secret.metadata.annotations.take().unwrap_or_default();
        let journal = secret.data.as_mut().and_then(|data| data.remove(KEY));
        wipe(&mut secret);
        Self {
            resource_version: secret.metadata.resource_version.unwrap_or_default(),
            owner: annotations.get(TRUST_DOMAIN_UID).cloned(),
            journal: journal.map(|bytes| Zeroizing::new(bytes.0)),
        }
    }
}

/// Overwrites what a Secret holds.
fn wipe(secret: &mut Secret) {
    secret.data.iter_mut().flat_map(BTreeMap::values_mut).for_each(|value| value.0.zeroize());
}

fn failed(name: &str, error: kube::Error) -> StoreError {
    match &error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict { name: name.to_owned() },
        _ => StoreError::Kube { name: name.to_owned(), source: Box::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteString, JournalStore, Secret, StoreError, StoredSecret, Zeroizing, wipe};
    use crate::{
        authorities::journal_cache::control_plane_policy,
        fake_api_server::{Asked, answering, refusal},
    };
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use countersign_core::journal::{Format, Journal, LocalMaker};
    use futures::FutureExt as _;
    use http::Method;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    fn journal() -> Journal {
        let policy = control_plane_policy();
        let made = Journal::create("cluster", None, &policy, &LocalMaker, Timestamp::UNIX_EPOCH);
        made.now_or_never().expect("it is made here").unwrap()
    }

    fn read() -> StoredSecret {
        StoredSecret { resource_version: "7".to_owned(), owner: None, journal: None }
    }

    fn taken(asked: &Asked) -> (u16, Value) {
        let mut stored = asked.body.clone();
        stored["metadata"]["resourceVersion"] = json!("8");
        (200, stored)
    }

    #[test]
    fn of_a_secret_the_journal_is_kept_in_a_buffer_that_is_wiped_and_the_rest_is_wiped_at_once() {
        let values = [("journal", "keys"), ("other", "secret")];
        let data = values.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
        let stored = StoredSecret::from(secret.clone());
        let journal: Option<Zeroizing<Vec<u8>>> = stored.journal;
        assert_eq!(journal.as_deref(), Some(&b"keys".to_vec()));
        wipe(&mut secret);
        assert!(secret.data.unwrap().values().all(|value| value.0.is_empty()));
    }

    #[tokio::test]
    async fn a_journal_takes_the_place_of_the_version_that_was_read_and_of_no_other() {
        let (client, questions) = answering(taken);
        let stored =
            JournalStore::new(client, "a", Format::V1).write("j", None, &journal(), Some(&read())).await.unwrap();
        assert_eq!(stored.resource_version, "8");
        let asked = questions.all();
        assert_eq!((&asked[0].method, &asked[0].body["metadata"]["resourceVersion"]), (&Method::PUT, &json!("7")));
    }

    #[tokio::test]
    async fn a_first_journal_is_made_and_takes_nothings_place() {
        let (client, questions) = answering(taken);
        JournalStore::new(client, "a", Format::V1).write("j", None, &journal(), None).await.unwrap();
        let asked = questions.all();
        assert_eq!((&asked[0].method, &asked[0].body["metadata"]["resourceVersion"]), (&Method::POST, &Value::Null));
    }

    #[tokio::test]
    async fn a_journal_is_written_in_the_format_that_is_enabled() {
        for format in [Format::V1, Format::V2] {
            let (client, questions) = answering(taken);
            JournalStore::new(client, "a", format).write("j", None, &journal(), None).await.unwrap();
            let asked = questions.all();
            let stored = STANDARD.decode(asked[0].body["data"]["journal"].as_str().unwrap()).unwrap();
            let envelope: Value = serde_json::from_slice(&stored).unwrap();
            assert_eq!(envelope["format"], format.name());
        }
    }

    #[tokio::test]
    async fn who_comes_second_is_told_so_and_writes_nothing_more() {
        for over in [Some(read()), None] {
            let (client, questions) = answering(|_| refusal(409, "Conflict"));
            let written = JournalStore::new(client, "a", Format::V1).write("j", None, &journal(), over.as_ref()).await;
            assert!(matches!(written, Err(StoreError::Conflict { .. })));
            assert_eq!(questions.all().len(), 1);
        }
    }
}
