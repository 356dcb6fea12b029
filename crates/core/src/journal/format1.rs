//! Format 1: X.509 roots and JWT authorities, each with its key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::authority::{Authority, AuthoritySlot};
use super::stored::{SlotParts, StoredKey, certificate, damaged_slot};
use super::{Journal, JournalError, Kind, Times};
use crate::id::TrustDomain;
use crate::key::KeyRef;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredJournal {
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

impl StoredJournal {
    /// `None` where the format cannot hold the journal.
    pub(super) fn of(journal: &Journal) -> Option<Self> {
        let slots = |kind| journal.slots(kind).iter().map(StoredSlot::of).collect::<Option<_>>();
        let known = |kind: &Kind| matches!(kind, Kind::X509 | Kind::Jwt);
        let others = journal.authorities.iter().filter(|(kind, _)| !known(kind)).all(|(_, slots)| slots.is_empty());
        (others && journal.unknown.is_empty()).then_some(())?;
        Some(Self {
            cluster: journal.cluster.clone(),
            trust_domain: journal.trust_domain.clone(),
            generation: journal.generation,
            sequence: journal.sequence,
            x509: slots(Kind::X509)?,
            jwt: slots(Kind::Jwt)?,
        })
    }

    pub(super) fn into_journal(self) -> Result<Journal, JournalError> {
        let slots = |kind, stored: Vec<StoredSlot>| {
            let slots = stored.into_iter().map(|slot| slot.into_parts()?.into_slot(kind)).collect::<Result<_, _>>();
            slots.map(|slots: Vec<_>| (kind, slots))
        };
        let kinds = [slots(Kind::X509, self.x509)?, slots(Kind::Jwt, self.jwt)?];
        Ok(Journal {
            cluster: self.cluster,
            trust_domain: self.trust_domain,
            generation: self.generation,
            sequence: self.sequence,
            format: super::Format::V1,
            authorities: kinds.into_iter().filter(|(_, slots)| !slots.is_empty()).collect(),
            unknown: Default::default(),
        })
    }
}

impl StoredSlot {
    fn of(slot: &AuthoritySlot) -> Option<Self> {
        let KeyRef::Stored(key) = slot.authority.key() else { return None };
        let certificate = match &slot.authority {
            Authority::X509(entry) if entry.is_stored_root() => Some(STANDARD.encode(entry.certificate().der())),
            Authority::X509(_) => return None,
            Authority::Jwt(_) => None,
            // No journal with one is written in this format.
            Authority::Wit(_) => return None,
        };
        let Times { prepared_at, activate_at, retire_at, remove_at } = slot.times;
        let (id, tainted_at, key) = (slot.id.clone(), slot.tainted_at, StoredKey::of(key));
        Some(Self { id, prepared_at, activate_at, retire_at, remove_at, tainted_at, certificate, key })
    }

    fn into_parts(self) -> Result<SlotParts, JournalError> {
        let damaged = damaged_slot(&self.id);
        let certificate = self.certificate.as_ref().map(|text| certificate(text).map_err(&damaged)).transpose()?;
        let Self { prepared_at, activate_at, retire_at, remove_at, .. } = self;
        Ok(SlotParts {
            times: Times { prepared_at, activate_at, retire_at, remove_at },
            tainted_at: self.tainted_at,
            key: KeyRef::Stored(self.key.read().map_err(&damaged)?),
            certificate,
            issuing_chain: Vec::new(),
            trust_anchors: Vec::new(),
            public_key: None,
            id: self.id,
        })
    }
}
