//! Format 2: authorities by kind, of which some may be unknown here.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::authority::{Authority, AuthoritySlot};
use super::stored::{SlotParts, StoredKey, certificate, damaged_slot};
use super::{Journal, JournalError, Kind, Times};
use crate::id::TrustDomain;
use crate::key::{KeyRef, SubjectPublicKeyInfo};
use crate::x509::CaCertificate;

/// As it is written and read. A slot is looked at once its kind is known.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredJournal<'a> {
    cluster: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trust_domain: Option<TrustDomain>,
    generation: u64,
    sequence: u64,
    #[serde(borrow)]
    authorities: BTreeMap<String, Vec<&'a RawValue>>,
}

/// A slot of a known kind.
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
    key: StoredKeyRef,
    /// JWT alone, where the key is elsewhere: a SubjectPublicKeyInfo, DER, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    /// X.509 alone: DER, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// X.509 alone, of one that another authority signed: those above its certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    issuing_chain: Vec<String>,
    /// X.509 alone, of one that another authority signed: a root is its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trust_anchors: Vec<String>,
}

/// Either `pkcs8`, or `store` and `reference`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKeyRef {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pkcs8: Option<StoredKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// What a slot of any kind has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnySlot {
    id: String,
    remove_at: Timestamp,
}

/// A slot of a kind that is not known here. It is written as it was read. `Debug` shows no key.
#[derive(Clone)]
pub(super) struct UnknownSlot {
    id: String,
    remove_at: Timestamp,
    json: Zeroizing<String>,
}

impl UnknownSlot {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// When it leaves the bundle of those that know it.
    pub(super) fn remove_at(&self) -> Timestamp {
        self.remove_at
    }

    fn read(json: &RawValue) -> Option<Self> {
        let AnySlot { id, remove_at } = serde_json::from_str(json.get()).ok()?;
        Some(Self { id, remove_at, json: Zeroizing::new(json.get().to_owned()) })
    }
}

impl std::fmt::Debug for UnknownSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnknownSlot").field("id", &self.id).field("remove_at", &self.remove_at).finish_non_exhaustive()
    }
}

/// The slots of a journal as JSON, each in a buffer that is wiped.
pub(super) struct SlotsJson(BTreeMap<String, Vec<Zeroizing<String>>>);

impl SlotsJson {
    pub(super) fn of(journal: &Journal) -> Result<Self, JournalError> {
        let mut slots: BTreeMap<String, Vec<Zeroizing<String>>> = BTreeMap::new();
        for (kind, known) in &journal.authorities {
            let json = known.iter().map(|slot| StoredSlot::of(slot).json()).collect::<Result<_, _>>()?;
            slots.insert(kind.name().to_owned(), json);
        }
        for (kind, unknown) in &journal.unknown {
            slots.insert(kind.clone(), unknown.iter().map(|slot| slot.json.clone()).collect());
        }
        Ok(Self(slots))
    }

    /// The length of all of it, in bytes.
    pub(super) fn length(&self) -> usize {
        self.0.iter().map(|(kind, slots)| kind.len() + slots.iter().map(|json| json.len() + 16).sum::<usize>()).sum()
    }

    pub(super) fn journal(&self, journal: &Journal) -> Result<StoredJournal<'_>, JournalError> {
        let mut authorities = BTreeMap::new();
        for (kind, slots) in &self.0 {
            let slots = slots.iter().map(|json| raw(json)).collect::<Result<Vec<_>, _>>()?;
            authorities.insert(kind.clone(), slots);
        }
        Ok(StoredJournal {
            cluster: journal.cluster.clone(),
            trust_domain: journal.trust_domain.clone(),
            generation: journal.generation,
            sequence: journal.sequence,
            authorities,
        })
    }
}

fn raw(json: &str) -> Result<&RawValue, JournalError> {
    serde_json::from_str(json).map_err(|_| JournalError::damaged("a slot cannot be written as JSON"))
}

impl StoredJournal<'_> {
    pub(super) fn into_journal(self) -> Result<Journal, JournalError> {
        let (mut authorities, mut unknown) = (BTreeMap::new(), BTreeMap::new());
        for (name, slots) in self.authorities {
            match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
                Some(kind) => {
                    let slots = slots.into_iter().map(|json| StoredSlot::read(json)?.into_parts()?.into_slot(kind));
                    authorities.insert(kind, slots.collect::<Result<Vec<_>, _>>()?);
                }
                None => {
                    let slots: Option<Vec<_>> = slots.into_iter().map(UnknownSlot::read).collect();
                    let slots = slots.ok_or_else(|| {
                        JournalError::damaged("a slot of a kind that is not known has no id or no end")
                    })?;
                    unknown.insert(name, slots);
                }
            }
        }
        Ok(Journal {
            cluster: self.cluster,
            trust_domain: self.trust_domain,
            generation: self.generation,
            sequence: self.sequence,
            format: super::Format::V2,
            authorities,
            unknown,
        })
    }
}

impl StoredSlot {
    fn of(slot: &AuthoritySlot) -> Self {
        let encoded = |certificates: &[CaCertificate]| -> Vec<String> {
            certificates.iter().map(|certificate| STANDARD.encode(certificate.der())).collect()
        };
        let key = StoredKeyRef::of(slot.authority.key());
        let Times { prepared_at, activate_at, retire_at, remove_at } = slot.times;
        let mut stored = Self {
            id: slot.id.clone(),
            prepared_at,
            activate_at,
            retire_at,
            remove_at,
            tainted_at: slot.tainted_at,
            public_key: None,
            certificate: None,
            issuing_chain: Vec::new(),
            trust_anchors: Vec::new(),
            key,
        };
        match &slot.authority {
            Authority::X509(entry) => {
                stored.certificate = Some(STANDARD.encode(entry.certificate().der()));
                if let Some(above) = entry.issuing_chain().get(1..) {
                    stored.issuing_chain = encoded(above);
                    stored.trust_anchors = encoded(entry.trust_anchors());
                }
            }
            Authority::Jwt(entry) if stored.key.pkcs8.is_none() => {
                stored.public_key = Some(STANDARD.encode(entry.public_key().der()));
            }
            Authority::Wit(entry) if stored.key.pkcs8.is_none() => {
                stored.public_key = Some(STANDARD.encode(entry.public_key().der()));
            }
            Authority::Jwt(_) | Authority::Wit(_) => {}
        }
        stored
    }

    fn json(&self) -> Result<Zeroizing<String>, JournalError> {
        let certificates = self.certificate.iter().chain(&self.issuing_chain).chain(&self.trust_anchors);
        // Of these JSON may escape every byte (six for one); base64 has nothing to escape.
        let escaped = [Some(&self.id), self.key.store.as_ref(), self.key.reference.as_ref()];
        let texts: usize = certificates.chain(&self.public_key).map(|text| text.len() + 8).sum();
        let escaped: usize = escaped.into_iter().flatten().map(|text| text.len() * 6).sum();
        let bytes = super::envelope::write_json(self, texts + escaped + 16 * 1024)?;
        // JSON that was just written is UTF-8.
        let text = std::str::from_utf8(&bytes).map_err(|_| JournalError::damaged("a slot is not UTF-8"))?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn read(json: &RawValue) -> Result<Self, JournalError> {
        super::envelope::read_json(json.get().as_bytes(), "slot")
    }

    fn into_parts(self) -> Result<SlotParts, JournalError> {
        let damaged = damaged_slot(&self.id);
        let certificates = |texts: &[String]| -> Result<Vec<CaCertificate>, JournalError> {
            texts.iter().map(|text| certificate(text).map_err(&damaged)).collect()
        };
        let own = self.certificate.as_ref().map(|text| certificate(text).map_err(&damaged)).transpose()?;
        let public_key = self.public_key.as_ref().map(|text| {
            let der = STANDARD.decode(text).map_err(|_| damaged("its public key is not base64".to_owned()))?;
            SubjectPublicKeyInfo::from_der(&der).map_err(|error| damaged(error.to_string()))
        });
        let Self { prepared_at, activate_at, retire_at, remove_at, .. } = self;
        Ok(SlotParts {
            times: Times { prepared_at, activate_at, retire_at, remove_at },
            tainted_at: self.tainted_at,
            certificate: own,
            issuing_chain: certificates(&self.issuing_chain)?,
            trust_anchors: certificates(&self.trust_anchors)?,
            public_key: public_key.transpose()?,
            key: self.key.read().map_err(&damaged)?,
            id: self.id,
        })
    }
}

impl StoredKeyRef {
    fn of(key: &KeyRef) -> Self {
        match key {
            KeyRef::Stored(key) => Self { pkcs8: Some(StoredKey::of(key)), store: None, reference: None },
            KeyRef::Elsewhere { store, reference } => {
                Self { pkcs8: None, store: Some(store.clone()), reference: Some(reference.clone()) }
            }
        }
    }

    fn read(self) -> Result<KeyRef, String> {
        match (self.pkcs8, self.store, self.reference) {
            (Some(key), None, None) => Ok(KeyRef::Stored(key.read()?)),
            (None, Some(store), Some(reference)) => Ok(KeyRef::Elsewhere { store, reference }),
            _ => Err("its key is neither pkcs8 nor store and reference".to_owned()),
        }
    }
}
