//! The stored form of a journal, and what must hold of one that is read.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::authority::{Authority, AuthoritySlot, JwtEntry, WitEntry, X509Entry};
use super::envelope::{Format, decode_secret, open, read_json, seal, shortened, write_json};
use super::format2::SlotsJson;
use super::slot::{Slot, Times};
use super::{Journal, JournalError, Kind, format1, format2};
use crate::id::TrustDomain;
use crate::key::{KeyRef, PrivateKey, SubjectPublicKeyInfo};
use crate::x509::CaCertificate;

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
    /// The stored form, in the format in which it was read (a new one: [`Format::V1`]) or was to be written since
    /// ([`Self::written_in`]), or in a later one where that cannot hold it. It holds private keys.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, JournalError> {
        let first = (self.format == Format::V1).then(|| format1::StoredJournal::of(self)).flatten();
        if let Some(stored) = first {
            let slots: usize = self.authorities.values().map(Vec::len).sum();
            return seal(Format::V1, &write_json(&stored, 1024 + slots * 16 * 1024)?);
        }
        let slots = SlotsJson::of(self)?;
        let stored = slots.journal(self)?;
        seal(Format::V2, &write_json(&stored, 1024 + slots.length())?)
    }

    /// The same journal, to be written in `format` unless it was read in a later one: what one replica wrote in a new format
    /// another does not take back.
    #[must_use]
    pub fn written_in(mut self, format: Format) -> Self {
        self.format = self.format.max(format);
        self
    }

    /// Reads the stored form, and refuses it unless it is whole, of a known format, of this cluster and trust domain, and
    /// no older than what was published.
    ///
    /// # Errors
    /// As said; none of them is a reason to make a new root.
    pub fn from_bytes(bytes: &[u8], expected: &Expected<'_>) -> Result<Self, JournalError> {
        let (format, payload) = open(bytes)?;
        let journal = match format {
            Format::V1 => read_json::<format1::StoredJournal>(&payload, "payload")?.into_journal()?,
            Format::V2 => read_json::<format2::StoredJournal<'_>>(&payload, "payload")?.into_journal()?,
        };
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
        let of_trust_domain = self.trust_domain.is_some();
        let is_missing = |kind: Kind| {
            let is_required = self.format == Format::V1 && kind.is_in_every_first_format();
            is_required && kind.belongs(of_trust_domain) && self.slots(kind).is_empty()
        };
        let is_foreign = |kind: Kind| !kind.belongs(of_trust_domain) && !self.slots(kind).is_empty();
        if Kind::ALL.into_iter().any(|kind| is_missing(kind) || is_foreign(kind)) {
            return Err(JournalError::damaged(
                "a kind of authority that belongs in it is missing, or one that does not is there",
            ));
        }
        let known = self.authorities.iter().flat_map(|(kind, slots)| slots.iter().map(|slot| (*kind, slot)));
        for (kind, slot) in known.clone() {
            self.check_slot(kind, slot).map_err(damaged_slot(&slot.id))?;
        }
        let unknown = self.unknown.values().flatten().map(format2::UnknownSlot::id);
        let mut ids = BTreeSet::new();
        match known.map(|(_, slot)| slot.id.as_str()).chain(unknown).find(|id| !ids.insert(*id)) {
            Some(twice) => Err(JournalError::damaged(format!("slot {} is there twice", shortened(twice)))),
            None => Ok(()),
        }
    }

    /// What is wrong with a slot of a kind.
    pub(super) fn check_slot(&self, kind: Kind, slot: &AuthoritySlot) -> Result<(), String> {
        let Times { prepared_at, activate_at, retire_at, remove_at } = slot.times;
        if !(prepared_at <= activate_at && activate_at <= retire_at && retire_at <= remove_at) {
            return Err("its times are out of order".to_owned());
        }
        if slot.authority.kind() != kind {
            return Err(format!("it is a {} authority, and stands among those of {kind}", slot.authority.kind()));
        }
        let Authority::X509(entry) = &slot.authority else { return Ok(()) };
        if entry.certificate().spiffe_id().map(|id| id.trust_domain()) != self.trust_domain.as_ref() {
            return Err("its certificate is of another trust domain".to_owned());
        }
        if entry.not_after() < remove_at {
            return Err("its certificate, or one above it, ends before the slot".to_owned());
        }
        Ok(())
    }
}

/// What every format stores of a slot, read.
pub(super) struct SlotParts {
    pub(super) id: String,
    pub(super) times: Times,
    pub(super) tainted_at: Option<Timestamp>,
    pub(super) key: KeyRef,
    pub(super) certificate: Option<CaCertificate>,
    /// Above the certificate.
    pub(super) issuing_chain: Vec<CaCertificate>,
    /// Empty: the certificate is its own.
    pub(super) trust_anchors: Vec<CaCertificate>,
    pub(super) public_key: Option<SubjectPublicKeyInfo>,
}

impl SlotParts {
    pub(super) fn into_slot(self, kind: Kind) -> Result<AuthoritySlot, JournalError> {
        let damaged = damaged_slot(&self.id);
        let authority = match kind {
            Kind::X509 => {
                let certificate =
                    self.certificate.ok_or_else(|| damaged("an X.509 authority has a certificate".to_owned()))?;
                let entry = if self.trust_anchors.is_empty() && self.issuing_chain.is_empty() {
                    X509Entry::root(certificate, self.key)
                } else {
                    let chain = std::iter::once(certificate).chain(self.issuing_chain).collect();
                    X509Entry::intermediate(chain, self.trust_anchors, self.key)
                };
                Authority::X509(entry.map_err(|error| damaged(error.to_string()))?)
            }
            Kind::Jwt | Kind::Wit => {
                if self.certificate.is_some() || !self.issuing_chain.is_empty() || !self.trust_anchors.is_empty() {
                    return Err(damaged(format!("a {kind} authority has no certificate")));
                }
                let public_key = match (&self.key, self.public_key) {
                    (KeyRef::Stored(key), None) => key.public_key().clone(),
                    (KeyRef::Elsewhere { .. }, Some(public_key)) => public_key,
                    _ => {
                        return Err(damaged(
                            "its public key stands beside a key that is elsewhere, and only there".to_owned(),
                        ));
                    }
                };
                match kind {
                    Kind::Wit => {
                        let entry = WitEntry::new(&self.id, &public_key, self.key);
                        Authority::Wit(entry.map_err(|error| damaged(error.to_string()))?)
                    }
                    _ => {
                        let entry = JwtEntry::new(&self.id, &public_key, self.key);
                        Authority::Jwt(entry.map_err(|error| damaged(error.to_string()))?)
                    }
                }
            }
        };
        Ok(Slot { id: self.id, times: self.times, tainted_at: self.tainted_at, authority })
    }
}

/// PKCS#8, DER, base64.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct StoredKey(String);

impl StoredKey {
    pub(super) fn of(key: &PrivateKey) -> Self {
        Self(STANDARD.encode(key.pkcs8_der().as_slice()))
    }

    pub(super) fn read(&self) -> Result<PrivateKey, String> {
        let der = decode_secret(&self.0).ok_or("its key is not base64")?;
        PrivateKey::from_pkcs8_der(&der).map_err(|error| error.to_string())
    }
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A certificate in base64.
pub(super) fn certificate(text: &str) -> Result<CaCertificate, String> {
    let der = STANDARD.decode(text).map_err(|_| "a certificate of it is not base64")?;
    CaCertificate::from_der(&der).map_err(|error| error.to_string())
}

/// Says of which slot something is wrong.
pub(super) fn damaged_slot(id: &str) -> impl Fn(String) -> JournalError + use<> {
    let id = shortened(id);
    move |what| JournalError::damaged(format!("slot {id}: {what}"))
}
