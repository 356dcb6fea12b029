//! The payload of the envelope: the journal as JSON, and what must hold of one that is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::authority::{JwtSlot, Stored, X509Slot};
use super::envelope::{decode_secret, open, read_json, seal, shortened, write_json};
use super::slot::{Slot, Times};
use super::{Journal, JournalError};
use crate::id::TrustDomain;
use crate::jwt::JwtAuthority;
use crate::key::PrivateKey;
use crate::x509::{CaCertificate, X509Authority};

/// What a journal must be, to be used here.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// This cluster: the uid of the namespace kube-system.
    pub cluster: &'a str,
    /// The trust domain; `None`: the control plane.
    pub trust_domain: Option<&'a TrustDomain>,
    /// The highest bundle sequence that was published, if any is known.
    pub published_sequence: Option<u64>,
    /// When it is read.
    pub now: Timestamp,
}

impl Journal {
    /// The stored form. It holds private keys.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, JournalError> {
        let slots = self.x509.len() + self.jwt.len();
        seal(&write_json(&StoredJournal::from(self), 1024 + slots * 16 * 1024)?)
    }

    /// Reads the stored form, and refuses it unless it is whole, of a known format, of this cluster and trust domain, and
    /// no older than what was published.
    ///
    /// # Errors
    /// As said; none of them is a reason to make a new root.
    pub fn from_bytes(bytes: &[u8], expected: &Expected<'_>) -> Result<Self, JournalError> {
        let payload = open(bytes)?;
        let stored: StoredJournal = read_json(&payload, "payload")?;
        let journal = Self::try_from(stored)?;
        journal.check_place(expected)?;
        journal.check_slots()?;
        Ok(journal)
    }

    fn check_place(&self, expected: &Expected<'_>) -> Result<(), JournalError> {
        if self.cluster != expected.cluster {
            let (found, expected) = (shortened(&self.cluster), expected.cluster.to_owned());
            return Err(JournalError::OtherCluster { found, expected });
        }
        if self.trust_domain.as_ref() != expected.trust_domain {
            let (found, expected) = (self.trust_domain.clone(), expected.trust_domain.cloned());
            return Err(JournalError::OtherTrustDomain { found, expected });
        }
        let sequence = self.sequence(expected.now);
        match expected.published_sequence {
            Some(published) if published > sequence => Err(JournalError::OlderThanPublished { sequence, published }),
            _ => Ok(()),
        }
    }

    fn check_slots(&self) -> Result<(), JournalError> {
        if self.x509.is_empty() || self.jwt.is_empty() != self.trust_domain.is_none() {
            return Err(JournalError::damaged(
                "a kind of authority that belongs in it is missing, or one that does not is there",
            ));
        }
        let times = self
            .x509
            .iter()
            .map(|slot| (&slot.id, slot.times))
            .chain(self.jwt.iter().map(|slot| (&slot.id, slot.times)));
        let mut ids = BTreeSet::new();
        for (id, Times { prepared_at, activate_at, retire_at, remove_at }) in times {
            if !(prepared_at <= activate_at && activate_at <= retire_at && retire_at <= remove_at) {
                return Err(JournalError::damaged(format!("the times of slot {id} are out of order")));
            }
            if !ids.insert(id) {
                return Err(JournalError::damaged(format!("slot {id} is there twice")));
            }
        }
        let foreign = |slot: &&X509Slot| slot.signer().trust_domain() != self.trust_domain.as_ref();
        if let Some(slot) = self.x509.iter().find(foreign) {
            return Err(JournalError::damaged(format!(
                "the certificate of slot {} is of another trust domain",
                slot.id
            )));
        }
        let outlived = |slot: &&X509Slot| slot.signer().certificate().not_after() < slot.times.remove_at;
        match self.x509.iter().find(outlived) {
            Some(slot) => {
                Err(JournalError::damaged(format!("the certificate of slot {} ends before the slot", slot.id)))
            }
            None => Ok(()),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredJournal {
    cluster: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trust_domain: Option<TrustDomain>,
    generation: u64,
    sequence: u64,
    x509: Vec<StoredSlot>,
    jwt: Vec<StoredSlot>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredSlot {
    id: String,
    prepared_at: Timestamp,
    activate_at: Timestamp,
    retire_at: Timestamp,
    remove_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tainted_at: Option<Timestamp>,
    /// X.509 alone: DER, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    key: StoredKey,
}

/// PKCS#8, DER, base64.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct StoredKey(String);

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<&Journal> for StoredJournal {
    fn from(journal: &Journal) -> Self {
        let certificate = |slot: &X509Slot| Some(STANDARD.encode(slot.signer().certificate().der()));
        Self {
            cluster: journal.cluster.clone(),
            trust_domain: journal.trust_domain.clone(),
            generation: journal.generation,
            sequence: journal.sequence,
            x509: journal.x509.iter().map(|slot| StoredSlot::new(slot, certificate(slot))).collect(),
            jwt: journal.jwt.iter().map(|slot| StoredSlot::new(slot, None)).collect(),
        }
    }
}

impl TryFrom<StoredJournal> for Journal {
    type Error = JournalError;

    fn try_from(stored: StoredJournal) -> Result<Self, Self::Error> {
        Ok(Self {
            cluster: stored.cluster,
            trust_domain: stored.trust_domain,
            generation: stored.generation,
            sequence: stored.sequence,
            x509: stored.x509.into_iter().map(StoredSlot::into_x509).collect::<Result<_, _>>()?,
            jwt: stored.jwt.into_iter().map(StoredSlot::into_jwt).collect::<Result<_, _>>()?,
        })
    }
}

impl StoredSlot {
    fn new<A>(slot: &Slot<Stored<A>>, certificate: Option<String>) -> Self {
        let Times { prepared_at, activate_at, retire_at, remove_at } = slot.times;
        let key = StoredKey(STANDARD.encode(slot.authority.key.pkcs8_der().as_slice()));
        let (id, tainted_at) = (slot.id.clone(), slot.tainted_at);
        Self { id, prepared_at, activate_at, retire_at, remove_at, tainted_at, certificate, key }
    }

    fn into_x509(self) -> Result<X509Slot, JournalError> {
        let der = self.certificate.as_ref().and_then(|text| STANDARD.decode(text).ok());
        let der = der.ok_or_else(|| JournalError::damaged(format!("slot {} has no certificate in base64", self.id)))?;
        let certificate = CaCertificate::from_der(&der).map_err(|error| self.damaged(error))?;
        let key = self.key()?;
        let signer = X509Authority::from_parts(certificate, key.clone()).map_err(|error| self.damaged(error))?;
        Ok(self.with(signer, key))
    }

    fn into_jwt(self) -> Result<JwtSlot, JournalError> {
        if self.certificate.is_some() {
            return Err(self.damaged("a JWT authority has no certificate"));
        }
        let key = self.key()?;
        let signer = JwtAuthority::new(&self.id, key.clone()).map_err(|error| self.damaged(error))?;
        Ok(self.with(signer, key))
    }

    fn key(&self) -> Result<PrivateKey, JournalError> {
        let der = decode_secret(&self.key.0).ok_or_else(|| self.damaged("its key is not base64"))?;
        PrivateKey::from_pkcs8_der(&der).map_err(|error| self.damaged(error))
    }

    fn with<A>(self, signer: A, key: PrivateKey) -> Slot<Stored<A>> {
        let (prepared_at, activate_at, retire_at, remove_at) =
            (self.prepared_at, self.activate_at, self.retire_at, self.remove_at);
        Slot {
            id: self.id,
            times: Times { prepared_at, activate_at, retire_at, remove_at },
            tainted_at: self.tainted_at,
            authority: Stored { signer: Arc::new(signer), key },
        }
    }

    fn damaged(&self, what: impl std::fmt::Display) -> JournalError {
        JournalError::damaged(format!("slot {}: {what}", shortened(&self.id)))
    }
}
