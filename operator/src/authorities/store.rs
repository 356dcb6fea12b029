//! Journals in Secrets, written under the fence of their resourceVersion: of two replicas that write at the same time one
//! finds a conflict, and looks again.

use std::collections::BTreeMap;

use countersign_core::journal::{Journal, JournalError};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use zeroize::Zeroizing;

use super::book::{OWNER_ANNOTATION, StoredSecret};

/// The type of the Secrets.
pub const SECRET_TYPE: &str = "countersign.dev/journal";

/// The key under which the journal stands in its Secret.
const KEY: &str = "journal";

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
}

impl JournalStore {
    /// The Secrets of `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { secrets: Api::namespaced(client, namespace) }
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
        let bytes = journal.to_bytes()?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                resource_version: over.map(|secret| secret.resource_version.clone()),
                annotations: owner.map(|uid| BTreeMap::from([(OWNER_ANNOTATION.to_owned(), uid.to_owned())])),
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
        written.map(StoredSecret::from).map_err(|error| failed(name, error))
    }
}

impl std::fmt::Debug for JournalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JournalStore")
    }
}

impl From<Secret> for StoredSecret {
    fn from(secret: Secret) -> Self {
        let annotations = secret.metadata.annotations.unwrap_or_default();
        let journal = secret.data.unwrap_or_default().remove(KEY);
        Self {
            resource_version: secret.metadata.resource_version.unwrap_or_default(),
            owner: annotations.get(OWNER_ANNOTATION).cloned(),
            journal: journal.map(|bytes| Zeroizing::new(bytes.0)),
        }
    }
}

fn failed(name: &str, error: kube::Error) -> StoreError {
    match &error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict { name: name.to_owned() },
        _ => StoreError::Kube { name: name.to_owned(), source: Box::new(error) },
    }
}
