//! What is planned: the policy by which authorities are made, what owners ask for, and the steps that follow.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::Kind;
use super::authority::AuthoritySlot;
use super::slot::{Slot, Times};
use crate::key::KeyType;

/// How authorities are made and how long they serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorityPolicy {
    /// How long an authority lives, from its latest activation to its end.
    pub ca_life: Duration,
    /// The longest life of anything it signs.
    pub longest_svid_life: Duration,
    /// How often relying parties look for a new bundle.
    pub refresh_hint: Duration,
    /// How long a switch may wait for acknowledgements. By so much it is planned earlier than it must happen.
    pub max_delay: Duration,
    /// How long a tainted X.509 authority stays in the bundle at most.
    pub taint_max_delay: Duration,
    /// Keys of X.509 authorities.
    pub x509_key_type: KeyType,
    /// Keys of JWT authorities.
    pub jwt_key_type: KeyType,
    /// Keys of WIT authorities; `None`: there are none, and none are made.
    pub wit_key_type: Option<KeyType>,
}

impl AuthorityPolicy {
    /// The life given to new authorities: `ca_life`, but never less than 2 × (longest SVID life + 3 × hint) + max delay,
    /// below which a successor could not be known everywhere before it signs (the rule that the CRD states). Whole seconds.
    pub fn life(&self) -> Duration {
        let least = (self.longest_svid_life + self.time_to_learn()) * 2 + self.max_delay;
        Duration::from_secs(self.ca_life.max(least).as_secs())
    }

    /// The type of the keys of a kind's authorities.
    pub const fn key_type(&self, kind: Kind) -> KeyType {
        match kind {
            Kind::X509 => self.x509_key_type,
            Kind::Jwt => self.jwt_key_type,
            Kind::Wit => match self.wit_key_type {
                Some(key_type) => key_type,
                None => KeyType::EcP256,
            },
        }
    }

    /// Whether authorities of a kind are made. One that the release before does not know is off until it is enabled, since
    /// replicas of both would publish other bundles under one sequence.
    pub const fn enables(&self, kind: Kind) -> bool {
        match kind {
            Kind::X509 | Kind::Jwt => true,
            Kind::Wit => self.wit_key_type.is_some(),
        }
    }

    /// How long before it signs a key is in the bundle, so that every relying party has polled: 3 × hint (SPIFFE
    /// Federation, 5.2.1, asks for 3 to 5). Whole seconds, rounded up.
    pub fn time_to_learn(&self) -> Duration {
        Duration::from_secs((self.refresh_hint * 3).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
    }
}

/// What the owner of a TrustDomain asks for beyond the schedule. Each request can be made again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotationRequests {
    /// Everything that was prepared before is to be replaced.
    pub after: Option<Timestamp>,
    /// Authorities that are no longer to be trusted soon: ids of slots, or subject key ids (hexadecimal).
    pub tainted: BTreeSet<String>,
    /// Authorities whose keys have leaked: out of the bundle at once. Named likewise.
    pub revoked: BTreeSet<String>,
}

impl RotationRequests {
    /// Whether the slot is one of those that are tainted or revoked: it signs nothing where that is known, also before the leader
    /// has written so.
    pub fn distrust(&self, slot: &AuthoritySlot) -> bool {
        self.tainted.iter().chain(&self.revoked).any(|name| slot.is_named(name))
    }
}

/// What agents have reported, over all replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    /// The highest sequence of the bundle that everyone who is expected to has acknowledged. `None`: unknown, since a replica
    /// did not answer, or one of them has acknowledged nothing.
    pub acknowledged: Option<u64>,
    /// Slots of tainted X.509 authorities whose leaves have all been replaced, as far as every replica knows.
    pub replaced: BTreeSet<String>,
}

/// What to change in a journal; empty when nothing is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which to apply them.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// One change to the slots of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of which kind.
    pub kind: Kind,
    /// What.
    pub action: Action,
}

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a key and put it into the bundle.
    Prepare {
        /// The life of its slot.
        times: Times,
        /// It will sign before every relying party can have learnt it, since nobody prepared it in time and there would
        /// be no authority otherwise. Worth an event.
        unannounced: bool,
    },
    /// Let the active slot sign until then: its successor's activation.
    RetireAt {
        /// The slot's id.
        slot: String,
        /// When it retires.
        at: Timestamp,
    },
    /// Let the active slot sign until then, and its successor from then on: earlier than was planned.
    SwitchAt {
        /// The slot that signs.
        from: String,
        /// Its successor.
        to: String,
        /// When.
        at: Timestamp,
        /// Why.
        reason: SwitchReason,
    },
    /// Let a prepared slot sign, since no other does. Worth an event.
    ActivateAt {
        /// The slot's id.
        slot: String,
        /// When.
        at: Timestamp,
    },
    /// Let a slot never sign again, and leave the bundle when what it signed has been replaced. Worth an event.
    Taint {
        /// The slot's id.
        slot: String,
        /// Now.
        at: Timestamp,
        /// When it leaves the bundle at the latest.
        remove_at: Timestamp,
    },
    /// Drop a slot and its key at once. Worth an event.
    Revoke {
        /// The slot's id.
        slot: String,
    },
    /// Drop a slot, and its key, whose end has come, or which never signed and is replaced.
    Remove {
        /// The slot's id.
        slot: String,
    },
}

/// Why a successor signs earlier than was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SwitchReason {
    /// Everyone who is expected to has acknowledged the bundle that holds it.
    Acknowledged,
    /// The owner asked for a rotation.
    Requested,
    /// The policy leaves its predecessor less time than before.
    Policy,
}

impl fmt::Display for SwitchReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acknowledged => "everyone has acknowledged it",
            Self::Requested => "a rotation was requested",
            Self::Policy => "the policy has changed",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        match &self.action {
            Action::Prepare { times, unannounced: false } => {
                write!(f, "prepare a {kind} authority which signs from {}", times.activate_at)
            }
            Action::Prepare { times, unannounced: true } => write!(
                f,
                "prepare a {kind} authority in haste: none was prepared in time, so it signs from {}, before every relying party has learnt it",
                times.activate_at
            ),
            Action::RetireAt { slot, at } => write!(f, "retire {kind} authority {slot} at {at}"),
            Action::ActivateAt { slot, at } => {
                write!(f, "activate {kind} authority {slot} at {at}, since no other signs")
            }
            Action::SwitchAt { from, to, at, reason } => {
                write!(f, "switch from {kind} authority {from} to {to} at {at}, since {reason}")
            }
            Action::Taint { slot, remove_at, .. } => {
                write!(f, "taint {kind} authority {slot}, which leaves the bundle at {remove_at} at the latest")
            }
            Action::Revoke { slot } => write!(f, "revoke {kind} authority {slot}: it leaves the bundle at once"),
            Action::Remove { slot } => write!(f, "remove {kind} authority {slot}"),
        }
    }
}

/// Changes `slots` as an action says that makes no authority.
pub(super) fn change<A>(slots: &mut Vec<Slot<A>>, action: &Action) {
    match action {
        Action::Prepare { .. } => {}
        Action::RetireAt { slot, at } => find(slots, slot).for_each(|slot| slot.times.retire_at = *at),
        Action::SwitchAt { from, to, at, .. } => {
            find(slots, from).for_each(|slot| slot.times.retire_at = *at);
            find(slots, to).for_each(|slot| slot.times.activate_at = *at);
        }
        Action::ActivateAt { slot, at } => find(slots, slot).for_each(|slot| slot.times.activate_at = *at),
        Action::Taint { slot, at, remove_at } => find(slots, slot).for_each(|slot| {
            slot.tainted_at = Some(*at);
            slot.times.remove_at = slot.times.remove_at.min(*remove_at);
            slot.times.retire_at = slot.times.retire_at.min(slot.times.remove_at);
            slot.times.activate_at = slot.times.activate_at.min(slot.times.retire_at);
        }),
        Action::Remove { slot } | Action::Revoke { slot } => slots.retain(|other| other.id != *slot),
    }
}

fn find<'a, A>(slots: &'a mut [Slot<A>], id: &'a str) -> impl Iterator<Item = &'a mut Slot<A>> {
    slots.iter_mut().filter(move |slot| slot.id == id)
}
