//! A session's decisions, pure: given what the issuer told, what is held and the time, what to ask for next and what to
//! publish. No key is made here and nothing is sent.

mod answers;
mod publication;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use countersign_core::id::SpiffeId;
use countersign_core::key::PrivateKey;
use jiff::Timestamp;

use super::held::{HeldJwt, HeldX509};
use super::told::{Identity, Told};

pub use answers::NotAccepted;

/// An answer later than this means that the stream is dead.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A clock is set back by more than this, or what it shows is but corrected.
const CORRECTED: Duration = Duration::from_secs(5);

/// A credential to ask for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// An X509-SVID.
    X509(SpiffeId),
    /// A JWT-SVID for these audiences.
    Jwt(SpiffeId, Vec<String>),
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be asked for at once.
    pub ask: Vec<Want>,
    /// When to plan again, if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// An answer is overdue: the stream must be replaced.
    pub stalled: bool,
}

/// A request under way.
#[derive(Debug)]
enum Pending {
    /// `id` is none for the default identity, when it is not yet known.
    X509 {
        id: Option<SpiffeId>,
        key: PrivateKey,
    },
    Jwt {
        id: SpiffeId,
        audiences: Vec<String>,
    },
}

#[derive(Debug)]
struct Refused {
    again_at: Timestamp,
    reason: String,
}

/// The state of one session.
#[derive(Debug, Default)]
pub struct Wallet {
    told: Option<Told>,
    x509: BTreeMap<SpiffeId, HeldX509>,
    jwt: BTreeMap<(SpiffeId, Vec<String>), HeldJwt>,
    pending: HashMap<u64, (Pending, Timestamp)>,
    refused: BTreeMap<Want, Refused>,
    /// Every credential was there or refused once: from then on changes are published as they come.
    complete: bool,
    /// Of the way to the issuer, for people; empty while it stands.
    trouble: String,
    /// When it was asked last whether the clock was set back.
    planned_at: Option<Timestamp>,
}

impl Wallet {
    /// Takes the issuer's new State: what is no longer this session's is forgotten.
    pub fn tell(&mut self, told: Told, now: Timestamp) {
        self.x509.retain(|id, _| told.identity(id).is_some());
        self.jwt.retain(|(id, _), _| told.identity(id).is_some());
        let trust_changed = self.told.as_ref().is_none_or(|before| before.trust != told.trust);
        if trust_changed {
            let bundles = &told.trust;
            self.x509.values_mut().for_each(|held| held.distrusted = !held.still_verifies(bundles, now));
            for ((_, audiences), held) in &mut self.jwt {
                if !held.still_verifies(audiences, bundles, now) {
                    held.renew_at = now;
                }
            }
        }
        self.refused.clear();
        self.trouble.clear();
        self.complete &= !told.identities.is_empty();
        self.told = Some(told);
    }

    /// Whether the clock was set back since this was asked last. What was put off by that clock would be put off for too long:
    /// patience with what is held ends, and the stream must be replaced.
    pub fn was_set_back(&mut self, now: Timestamp) -> bool {
        let set_back = self.planned_at.replace(now).is_some_and(|before| after(now, CORRECTED) < before);
        if set_back {
            self.x509.values_mut().for_each(|held| held.patient_until = None);
        }
        set_back
    }

    /// The stream is gone, and with it every request on it.
    pub fn disconnected(&mut self, why: String) {
        self.pending.clear();
        self.refused.clear();
        self.trouble = why;
    }

    /// Notes that an X509-SVID was asked for with `key`; no id means the default identity, as in Hello.
    pub fn asked_x509(&mut self, request: u64, id: Option<SpiffeId>, key: PrivateKey, now: Timestamp) {
        self.pending.insert(request, (Pending::X509 { id, key }, now));
    }

    /// Notes that a JWT-SVID was asked for.
    pub fn asked_jwt(&mut self, request: u64, id: SpiffeId, audiences: Vec<String>, now: Timestamp) {
        self.pending.insert(request, (Pending::Jwt { id, audiences }, now));
    }

    /// The open request for that token, if there is one.
    pub fn open_jwt_request(&self, id: &SpiffeId, audiences: &[String]) -> Option<u64> {
        self.pending.iter().find_map(|(request, (pending, _))| match pending {
            Pending::Jwt { id: asked, audiences: for_whom } if asked == id && for_whom == audiences => Some(*request),
            _ => None,
        })
    }

    /// Whether the default identity needs a certificate, which Hello can ask for.
    pub fn wants_default(&self, now: Timestamp) -> bool {
        let Some(default) = self.told.as_ref().and_then(|told| told.identities.first()) else {
            return true;
        };
        self.x509_due(default, now).is_some_and(|due| due <= now)
    }

    /// What is to be asked for, and when to look again.
    pub fn plan(&self, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let mut wake = |at: Timestamp| plan.wake_at = Some(plan.wake_at.map_or(at, |earlier| earlier.min(at)));
        for (_, asked_at) in self.pending.values() {
            let overdue_at = after(*asked_at, ANSWER_TIMEOUT);
            plan.stalled |= overdue_at <= now;
            wake(overdue_at);
        }
        self.x509.values().map(|held| held.expires_at).filter(|expiry| *expiry > now).for_each(&mut wake);
        for (want, due) in self.wants(now) {
            let due = self.refused.get(&want).map_or(due, |refused| due.max(refused.again_at));
            if due > now {
                wake(due);
            } else {
                plan.ask.push(want);
            }
        }
        plan
    }

    /// A held token that is alive. The flag says whether it is in the first half of its life.
    pub fn token(&self, id: &SpiffeId, audiences: &[String], now: Timestamp) -> Option<(&HeldJwt, bool)> {
        let held = self.jwt.get(&(id.clone(), audiences.to_vec()))?;
        (held.expires_at > now).then_some((held, held.renew_at > now))
    }

    /// Everything the session should hold, each with the time from which it is to be asked for; what is under way is not
    /// among it.
    fn wants(&self, now: Timestamp) -> impl Iterator<Item = (Want, Timestamp)> {
        self.told.iter().flat_map(credentials).filter_map(move |want| {
            let due = match &want {
                Want::X509(id) => self.x509_due(self.told.as_ref()?.identity(id)?, now)?,
                Want::Jwt(id, audiences) => self.jwt_due(id, audiences, now)?,
            };
            Some((want, due))
        })
    }

    /// When a certificate of `identity` is to be asked for; none while that is under way.
    fn x509_due(&self, identity: &Identity, now: Timestamp) -> Option<Timestamp> {
        if self.is_pending(identity) {
            return None;
        }
        let Some(held) = self.x509.get(&identity.id) else {
            return Some(now);
        };
        let at_once = held.distrusted || is_outdated(held, identity);
        let due = if at_once { now } else { held.renew_at };
        Some(held.patient_until.map_or(due, |patient_until| due.max(patient_until)))
    }

    fn jwt_due(&self, id: &SpiffeId, audiences: &[String], now: Timestamp) -> Option<Timestamp> {
        if self.open_jwt_request(id, audiences).is_some() {
            return None;
        }
        Some(self.jwt.get(&(id.clone(), audiences.to_vec())).map_or(now, |held| held.renew_at))
    }

    fn is_pending(&self, identity: &Identity) -> bool {
        let default = self.told.as_ref().and_then(|told| told.identities.first());
        let is_default = default.is_some_and(|default| default.id == identity.id);
        self.pending.values().any(|(pending, _)| match pending {
            Pending::X509 { id: Some(id), .. } => *id == identity.id,
            Pending::X509 { id: None, .. } => is_default,
            Pending::Jwt { .. } => false,
        })
    }

    fn has(&self, want: &Want, now: Timestamp) -> bool {
        match want {
            Want::X509(id) => self.x509.get(id).is_some_and(|held| held.expires_at > now),
            Want::Jwt(id, audiences) => self.token(id, audiences, now).is_some(),
        }
    }

    /// What workloads ask for beyond that is neither renewed nor remembered when refused.
    fn is_for_file(&self, id: &SpiffeId, audiences: &[String]) -> bool {
        let identity = self.told.as_ref().and_then(|told| told.identity(id));
        matches!(audiences, [one] if identity.is_some_and(|identity| identity.exact_audiences.contains(one)))
    }
}

/// Whether the issuer would sign another now: by another authority, or for other DNS names.
fn is_outdated(held: &HeldX509, identity: &Identity) -> bool {
    identity.tainted.contains(&held.authority_key_id)
        || identity.dns_names.as_ref().is_some_and(|names| *names != held.dns_names)
}

/// Everything that a session told so should hold.
fn credentials(told: &Told) -> impl Iterator<Item = Want> {
    told.identities.iter().flat_map(|identity| {
        let token = |audience: &String| Want::Jwt(identity.id.clone(), vec![audience.clone()]);
        std::iter::once(Want::X509(identity.id.clone())).chain(identity.exact_audiences.iter().map(token))
    })
}

fn after(time: Timestamp, span: Duration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
