//! What to report about a remote trust domain: the source of conditions and events.

use countersign_reasons::Reason;
use std::fmt;

use jiff::Timestamp;

use super::refusal::Refusal;
use super::stored::{Failure, StoredError};

/// Something to report about a remote trust domain. A closed list; of what a peer sent, its texts hold numbers at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flag {
    /// What was stored cannot be used, and is as if absent. Reported once: the decision writes it anew.
    StoredUnreadable(StoredError),
    /// It claims a trust domain whose authority is here: nothing is polled and nothing handed out.
    OwnTrustDomain,
    /// There is no bundle yet.
    NotBootstrapped,
    /// A self-serving endpoint that nothing valid verifies: it is not polled.
    EndpointNotVerifiable,
    /// The document in the TrustDomain cannot be used.
    BootstrapRefused(Refusal),
    /// The document in the TrustDomain was changed, and its sequence is not higher than one that was accepted before.
    BootstrapNotNewer {
        /// The sequence of the document.
        offered: Option<u64>,
        /// The highest that was accepted.
        highest: Option<u64>,
    },
    /// `replace` is set though the document was taken: whoever reverts the document would replace newer keys.
    BootstrapReplaceSet,
    /// The bundle is from the TrustDomain and ends soon.
    BootstrapExpiring {
        /// When its last certificate ends.
        at: Timestamp,
    },
    /// The bundle is from the TrustDomain, and its last certificate has ended: nothing is handed out.
    BootstrapExpired {
        /// When that was.
        at: Timestamp,
    },
    /// The bundle is from the TrustDomain and has no certificate, so that it never ends.
    BootstrapWithoutEnd,
    /// The bundle was from the TrustDomain, which has none any more: nothing is handed out.
    BootstrapRemoved,
    /// No poll has confirmed the bundle for longer than `maxStale`: nothing is handed out.
    Stale {
        /// Since when.
        since: Timestamp,
    },
    /// The last polls brought nothing that was taken.
    PollFailing(Failure),
    /// The document has no sequence, so that which of two is older cannot be known.
    SequenceMissing,
    /// The document has other keys than an earlier one of the same sequence.
    SequenceReused,
    /// The bundle has no key that is known here: it is handed out, and nothing is trusted by it.
    TrustsNothing,
    /// The bundle has more keys than are kept.
    KeysDropped {
        /// How many are left out.
        count: usize,
    },
}

impl Flag {
    /// A CamelCase reason for conditions.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::StoredUnreadable(_) => Reason::StoredUnreadable,
            Self::OwnTrustDomain => Reason::OwnTrustDomain,
            Self::NotBootstrapped => Reason::NotBootstrapped,
            Self::EndpointNotVerifiable => Reason::EndpointNotVerifiable,
            Self::BootstrapRefused(_) => Reason::BootstrapRefused,
            Self::BootstrapNotNewer { .. } => Reason::BootstrapNotNewer,
            Self::BootstrapReplaceSet => Reason::BootstrapReplaceSet,
            Self::BootstrapExpiring { .. } => Reason::BootstrapExpiring,
            Self::BootstrapExpired { .. } => Reason::BootstrapExpired,
            Self::BootstrapWithoutEnd => Reason::BootstrapWithoutEnd,
            Self::BootstrapRemoved => Reason::BootstrapRemoved,
            Self::Stale { .. } => Reason::Stale,
            Self::PollFailing(_) => Reason::PollFailing,
            Self::SequenceMissing => Reason::SequenceMissing,
            Self::SequenceReused => Reason::SequenceReused,
            Self::TrustsNothing => Reason::TrustsNothing,
            Self::KeysDropped { .. } => Reason::KeysDropped,
        }
    }

    /// Whether no bundle is handed out because of it.
    pub const fn ends_trust(&self) -> bool {
        match self {
            Self::OwnTrustDomain
            | Self::NotBootstrapped
            | Self::BootstrapExpired { .. }
            | Self::BootstrapRemoved
            | Self::Stale { .. } => true,
            Self::StoredUnreadable(_)
            | Self::EndpointNotVerifiable
            | Self::BootstrapRefused(_)
            | Self::BootstrapNotNewer { .. }
            | Self::BootstrapReplaceSet
            | Self::BootstrapExpiring { .. }
            | Self::BootstrapWithoutEnd
            | Self::PollFailing(_)
            | Self::SequenceMissing
            | Self::SequenceReused
            | Self::TrustsNothing
            | Self::KeysDropped { .. } => false,
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number =
            |sequence: &Option<u64>| sequence.map_or_else(|| "none".to_owned(), |sequence| sequence.to_string());
        match self {
            Self::StoredUnreadable(error) => write!(
                f,
                "{error}; it is replaced, and which sequences were accepted before is not known any more"
            ),
            Self::OwnTrustDomain => f.write_str(
                "this cluster is the authority of the trust domain, so it cannot be remote: remove one of the two TrustDomains",
            ),
            Self::NotBootstrapped => {
                f.write_str("there is no bundle yet: none was taken from the TrustDomain, and no poll has brought one")
            }
            Self::EndpointNotVerifiable => f.write_str(
                "the endpoint is not polled: there is no valid certificate of the trust domain that verifies it; give its \
                 current bundle in bootstrap, with a higher sequence or replace: true",
            ),
            Self::BootstrapRefused(refusal) => write!(f, "bootstrap.bundle is not taken: {refusal}"),
            Self::BootstrapNotNewer { offered, highest } => write!(
                f,
                "bootstrap.bundle was changed and is not taken: its sequence is {}, and {} was accepted before; for going back, \
                 set bootstrap.replace",
                number(offered),
                number(highest)
            ),
            Self::BootstrapReplaceSet => f.write_str(
                "bootstrap.bundle has been taken, and bootstrap.replace is still set: remove it, or reverting the bundle \
                 restores keys that were revoked",
            ),
            Self::BootstrapExpiring { at } => write!(
                f,
                "the bundle is from bootstrap.bundle, and its last certificate ends at {at:.0}: give a newer one, or make \
                 sure that its endpoint can be polled"
            ),
            Self::BootstrapExpired { at } => write!(
                f,
                "the bundle is from bootstrap.bundle, and its last certificate ended at {at:.0}: nothing is trusted; give a newer one"
            ),
            Self::BootstrapWithoutEnd => f.write_str(
                "the bundle is from bootstrap.bundle and has no certificate, so it is trusted for as long as it stands there",
            ),
            Self::BootstrapRemoved => f.write_str(
                "the bundle was from bootstrap.bundle, which was removed before a poll confirmed it: nothing is trusted",
            ),
            Self::Stale { since } => write!(
                f,
                "no poll has confirmed the bundle for longer than maxStale, since {since:.0}: nothing is trusted until one does"
            ),
            Self::PollFailing(Failure { refusal, count, since, at: _ }) => {
                write!(f, "no poll has brought a bundle that was taken since {since:.0} ({count} in a row); the last one: {refusal}")
            }
            Self::SequenceMissing => f.write_str(
                "the bundle has no spiffe_sequence: whatever the endpoint serves is taken for the newest",
            ),
            Self::SequenceReused => f.write_str(
                "the keys of the bundle changed and its spiffe_sequence did not: an older bundle cannot be told from a newer one",
            ),
            Self::TrustsNothing => f.write_str(
                "the bundle has no key that is known here: its trust domain withdrew all of them, or uses other kinds",
            ),
            Self::KeysDropped { count } => {
                write!(f, "the bundle is longer than 128 KiB: {count} of its keys are left out")
            }
        }
    }
}
