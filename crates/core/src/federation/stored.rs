//! What is stored of a remote trust domain: the bundle that is kept, where it came from, what was accepted before, and what
//! came of the last polls. Its stored form is JSON of one line, versioned and bounded; what was written is read back as it was,
//! and anything else is refused.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::candidate::Candidate;
use super::digest::Digest;
use super::limits::MAX_KEPT_LENGTH;
use super::refusal::Refusal;
use crate::bundle::{Bundle, BundleFormat};
use crate::id::TrustDomain;
use crate::jws::{quoted, read_object};

/// The longest stored form, in bytes.
pub const MAX_STORED_LENGTH: usize = MAX_KEPT_LENGTH + 4 * 1024;

/// The version of the stored form. One that is new is read for one release before it is written.
const FORMAT: &str = "countersign.dev/remote-bundle.v1";

/// What is stored of a remote trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRemote {
    pub(super) trust_domain: TrustDomain,
    /// The least sequence that a poll may bring: the highest that was accepted since a bundle in the TrustDomain replaced
    /// everything before.
    pub(super) sequence_floor: Option<u64>,
    /// The highest sequence that was ever accepted. A replacement does not lower it.
    pub(super) highest_sequence: Option<u64>,
    /// Of the document in the TrustDomain that was taken last.
    pub(super) bootstrap: Option<Digest>,
    /// Of the endpoint that the times below belong to.
    pub(super) endpoint: Option<Digest>,
    pub(super) polled_at: Option<Timestamp>,
    pub(super) next_poll: Option<Timestamp>,
    pub(super) failure: Option<Failure>,
    pub(super) kept: Option<Kept>,
}

/// The last good bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) origin: Origin,
    /// Normalised. Its sequence is the revision under which it is handed out; that of its document is `sequence`.
    pub(super) bundle: Bundle,
    pub(super) sequence: Option<u64>,
    /// Whether an earlier document had this sequence and other keys.
    pub(super) is_sequence_reused: bool,
    /// How many keys exceeded what is kept.
    pub(super) dropped: usize,
    /// When its keys were first seen.
    pub(super) taken_at: Timestamp,
    /// When a poll brought it last; of one from the TrustDomain, when it was taken.
    pub(super) confirmed_at: Timestamp,
}

/// Where a bundle came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// From the TrustDomain.
    Bootstrap,
    /// From the endpoint.
    Polled,
}

/// Polls that brought nothing that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// Of the last one.
    pub refusal: Refusal,
    /// How many in a row.
    pub count: u32,
    /// When the first one was.
    pub since: Timestamp,
    /// When the last one was.
    pub at: Timestamp,
}

/// Why what is stored cannot be used. Then it is as if nothing were stored: the bundle in the TrustDomain is taken anew, and
/// which sequences were accepted before is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// Longer than [`MAX_STORED_LENGTH`].
    #[error("what is stored has {length} bytes, more than {MAX_STORED_LENGTH}")]
    TooLong {
        /// In bytes.
        length: usize,
    },
    /// Written in another format.
    #[error(
        "what is stored has the format {format}, and this release reads {FORMAT:?}: it was written by another release"
    )]
    UnknownFormat {
        /// Quoted and shortened.
        format: String,
    },
    /// Not as it was written.
    #[error("what is stored was changed or cut off: {what}")]
    Malformed {
        /// What does not hold.
        what: &'static str,
    },
    /// Of another trust domain.
    #[error("what is stored is of trust domain {found}: each belongs to the TrustDomain that it was written for")]
    OtherTrustDomain {
        /// As it stands there.
        found: TrustDomain,
    },
}

impl StoredRemote {
    /// Nothing is known yet.
    pub(super) fn empty(trust_domain: &TrustDomain) -> Self {
        Self {
            trust_domain: trust_domain.clone(),
            sequence_floor: None,
            highest_sequence: None,
            bootstrap: None,
            endpoint: None,
            polled_at: None,
            next_poll: None,
            failure: None,
            kept: None,
        }
    }

    /// Whose bundle it is.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The sequence under which the bundle is handed out. It is ours, and grows with every change of keys to at least the unix
    /// milliseconds of the change, whatever the peer's sequence does: agents never go back to a lower one. `None`: no bundle is
    /// kept.
    pub fn revision(&self) -> Option<u64> {
        self.kept.as_ref().map(|kept| kept.bundle.sequence)
    }

    /// The sequence in the document of the bundle that is kept, where it has one.
    pub fn sequence(&self) -> Option<u64> {
        self.kept.as_ref().and_then(|kept| kept.sequence)
    }

    /// Where the bundle that is kept came from.
    pub fn origin(&self) -> Option<Origin> {
        self.kept.as_ref().map(|kept| kept.origin)
    }

    /// When the keys that are kept were first seen.
    pub fn taken_at(&self) -> Option<Timestamp> {
        self.kept.as_ref().map(|kept| kept.taken_at)
    }

    /// When a poll brought last what is kept; of a bundle from the TrustDomain, when it was taken.
    pub fn confirmed_at(&self) -> Option<Timestamp> {
        self.kept.as_ref().map(|kept| kept.confirmed_at)
    }

    /// When the endpoint was polled last.
    pub fn polled_at(&self) -> Option<Timestamp> {
        self.polled_at
    }

    /// When the endpoint is to be polled next.
    pub fn next_poll(&self) -> Option<Timestamp> {
        self.next_poll
    }

    /// What is wrong with the endpoint, since the last poll that was taken.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The bundle that is kept. Whether it is handed out, [`super::trusted`] says.
    pub fn kept_bundle(&self) -> Option<&Bundle> {
        self.kept.as_ref().map(|kept| &kept.bundle)
    }

    /// Whether it is to be written where `stored` was read. What every poll changes alone (when polls were and will be, and how
    /// many failed) is not: it is written once the last confirmation that is stored is older by an eighth of `max_stale`, so that
    /// a replica that reads it later trusts a bundle for at most that much less.
    pub fn is_worth_writing_over(&self, stored: &Self, max_stale: Duration) -> bool {
        let without_polls = |one: &Self| {
            let mut one = Self { polled_at: None, next_poll: None, failure: None, ..one.clone() };
            one.kept.iter_mut().for_each(|kept| kept.confirmed_at = kept.taken_at);
            one
        };
        let lag = self.confirmed_at().zip(stored.confirmed_at()).map(|(now, then)| now.duration_since(then));
        let is_late = lag.is_some_and(|lag| Duration::try_from(lag).is_ok_and(|lag| lag >= max_stale / 8));
        is_late || without_polls(self) != without_polls(stored)
    }

    /// The stored form: JSON, at most [`MAX_STORED_LENGTH`] bytes; the same bytes for the same content.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts, numbers and a document that was just written: this always has JSON.
        self.write().unwrap_or_default()
    }

    /// Reads the stored form of `trust_domain`.
    ///
    /// # Errors
    /// When it is not, byte for byte, what [`Self::to_bytes`] writes for this trust domain.
    pub fn from_bytes(trust_domain: &TrustDomain, bytes: &[u8]) -> Result<Self, StoredError> {
        if bytes.len() > MAX_STORED_LENGTH {
            return Err(StoredError::TooLong { length: bytes.len() });
        }
        let malformed = |what| StoredError::Malformed { what };
        let Beginning { format } =
            read_object(bytes).ok_or_else(|| malformed("it is not a JSON object with a format"))?;
        if format != FORMAT {
            return Err(StoredError::UnknownFormat { format: quoted(&format) });
        }
        let form: Form<'_> = read_object(bytes).ok_or_else(|| malformed("it has not the members of its format"))?;
        if form.trust_domain != *trust_domain {
            return Err(StoredError::OtherTrustDomain { found: form.trust_domain });
        }
        let stored = form.into_stored()?;
        if !stored.is_consistent() {
            return Err(malformed("its sequences or its origin contradict each other"));
        }
        if stored.to_bytes() == bytes { Ok(stored) } else { Err(malformed("it is formatted in another way")) }
    }

    /// What every decision leaves behind.
    fn is_consistent(&self) -> bool {
        match &self.kept {
            Some(kept) => {
                let fits_origin = match kept.origin {
                    Origin::Bootstrap => self.bootstrap.is_some() && kept.sequence == self.sequence_floor,
                    Origin::Polled => kept.sequence <= self.sequence_floor,
                };
                fits_origin && self.sequence_floor <= self.highest_sequence
            }
            None => self.bootstrap.is_none() && self.sequence_floor.is_none() && self.highest_sequence.is_none(),
        }
    }

    fn write(&self) -> serde_json::Result<Vec<u8>> {
        let document = self.kept.as_ref().map(|kept| kept.bundle.to_json());
        let kept = match self.kept.as_ref().zip(document.as_ref()) {
            Some((kept, document)) => Some(KeptForm {
                origin: kept.origin,
                sequence: kept.sequence,
                sequence_reused: kept.is_sequence_reused,
                dropped: kept.dropped,
                taken_at: kept.taken_at,
                confirmed_at: kept.confirmed_at,
                document: serde_json::from_slice(document)?,
            }),
            None => None,
        };
        serde_json::to_vec(&Form {
            format: FORMAT.to_owned(),
            trust_domain: self.trust_domain.clone(),
            sequence_floor: self.sequence_floor,
            highest_sequence: self.highest_sequence,
            bootstrap: self.bootstrap,
            endpoint: self.endpoint,
            polled_at: self.polled_at,
            next_poll: self.next_poll,
            failure: self.failure,
            kept,
        })
    }
}

#[derive(Deserialize)]
struct Beginning {
    format: String,
}

/// As it is written and read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Form<'a> {
    format: String,
    trust_domain: TrustDomain,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence_floor: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    highest_sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bootstrap: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    polled_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_poll: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    kept: Option<KeptForm<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeptForm<'a> {
    origin: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sequence_reused: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    dropped: usize,
    taken_at: Timestamp,
    confirmed_at: Timestamp,
    /// The bundle document; its sequence is the revision.
    #[serde(borrow)]
    document: &'a RawValue,
}

impl Form<'_> {
    fn into_stored(self) -> Result<StoredRemote, StoredError> {
        let kept = self.kept.map(|kept| kept.into_kept(&self.trust_domain)).transpose()?;
        Ok(StoredRemote {
            trust_domain: self.trust_domain,
            sequence_floor: self.sequence_floor,
            highest_sequence: self.highest_sequence,
            bootstrap: self.bootstrap,
            endpoint: self.endpoint,
            polled_at: self.polled_at,
            next_poll: self.next_poll,
            failure: self.failure,
            kept,
        })
    }
}

impl KeptForm<'_> {
    fn into_kept(self, trust_domain: &TrustDomain) -> Result<Kept, StoredError> {
        let read = Candidate::read(BundleFormat::Spiffe, trust_domain, self.document.get().as_bytes());
        let candidate =
            read.map_err(|_| StoredError::Malformed { what: "its document is no bundle of the trust domain" })?;
        Ok(Kept {
            origin: self.origin,
            bundle: candidate.bundle,
            sequence: self.sequence,
            is_sequence_reused: self.sequence_reused,
            dropped: self.dropped,
            taken_at: self.taken_at,
            confirmed_at: self.confirmed_at,
        })
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
