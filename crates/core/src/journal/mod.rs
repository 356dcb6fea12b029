//! The journal of authorities: for each kind a few slots, each prepared, then active, then retiring, then gone.
//! States follow from (journal, now); [`next`] decides what is due. A journal that cannot be used is an error, never a new
//! root.

mod authority;
mod config;
mod envelope;
mod error;
mod plan;
mod slot;
mod stored;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use authority::{JwtSlot, KeySource, RandomKeys, Stored, X509Slot};
pub use config::AuthorityConfig;
pub use envelope::{FORMAT, MAX_LENGTH};
pub use error::JournalError;
pub use plan::{Action, AuthorityPolicy, Kind, Plan, Step};
pub use slot::{Slot, State, Times};
pub use stored::Expected;

use crate::bundle::Bundle;
use crate::id::TrustDomain;
use crate::jwt::JwtAuthority;
use crate::key::KeyType;
use crate::x509::{CaCertificate, X509Authority};

/// The authorities of a trust domain, or of the control plane, and their keys. `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct Journal {
    cluster: String,
    trust_domain: Option<TrustDomain>,
    generation: u64,
    sequence: u64,
    x509: Vec<X509Slot>,
    jwt: Vec<JwtSlot>,
}

/// What is due at `now`. The control plane has no JWT authorities.
pub fn next(journal: &Journal, policy: &AuthorityPolicy, now: Timestamp) -> Plan {
    let step = |kind| move |action| Step { kind, action };
    let mut steps: Vec<Step> =
        plan::next_actions(&journal.x509, policy, now).into_iter().map(step(Kind::X509)).collect();
    if journal.trust_domain.is_some() {
        steps.extend(plan::next_actions(&journal.jwt, policy, now).into_iter().map(step(Kind::Jwt)));
    }
    Plan { steps }
}

impl Journal {
    /// A new journal with its first authorities, which sign at once. `trust_domain` `None`: the control plane's. Only for
    /// where there has never been one.
    ///
    /// # Errors
    /// When an authority cannot be made.
    pub fn create(
        cluster: &str,
        trust_domain: Option<&TrustDomain>,
        policy: &AuthorityPolicy,
        keys: &mut impl KeySource,
        now: Timestamp,
    ) -> Result<Self, JournalError> {
        let empty = Self {
            cluster: cluster.to_owned(),
            trust_domain: trust_domain.cloned(),
            generation: 0,
            sequence: 0,
            x509: Vec::new(),
            jwt: Vec::new(),
        };
        empty.apply(&next(&empty, policy, now), policy, keys, now)
    }

    /// The journal after `plan`, which [`next`] made from this journal. An empty plan changes nothing.
    ///
    /// # Errors
    /// [`JournalError::StalePlan`] when the plan names a slot that is not there; when an authority cannot be made.
    pub fn apply(
        &self,
        plan: &Plan,
        policy: &AuthorityPolicy,
        keys: &mut impl KeySource,
        now: Timestamp,
    ) -> Result<Self, JournalError> {
        if plan.is_empty() {
            return Ok(self.clone());
        }
        if !plan.steps.iter().all(|step| self.knows(step)) {
            return Err(JournalError::StalePlan { at: now });
        }
        let x509 = plan::apply(self.x509.clone(), actions(plan, Kind::X509), |times| {
            self.new_x509(policy.x509_key_type, keys, times)
        })?;
        let jwt = plan::apply(self.jwt.clone(), actions(plan, Kind::Jwt), |_| new_jwt(policy.jwt_key_type, keys))?;
        let sequence = succeeding(self.sequence(now), now);
        Ok(Self { generation: self.generation.saturating_add(1), sequence, x509, jwt, ..self.clone() })
    }

    /// The next moment after `now` at which a state changes or something is due; look again then. `None`: never.
    pub fn next_change(&self, policy: &AuthorityPolicy, now: Timestamp) -> Option<Timestamp> {
        let changes = [plan::next_change(&self.x509, policy, now), plan::next_change(&self.jwt, policy, now)];
        changes.into_iter().flatten().min()
    }

    /// The uid of the namespace kube-system of the cluster it was made in.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The trust domain; `None`: the control plane.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }

    /// How many times it was changed since it was made.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The bundle's sequence at `now`: it grows with every change of the journal, to at least the unix milliseconds of the
    /// change, and with every slot whose end has come since; so it is the same at every replica.
    pub fn sequence(&self, now: Timestamp) -> u64 {
        let ends =
            self.x509.iter().map(|slot| slot.times.remove_at).chain(self.jwt.iter().map(|slot| slot.times.remove_at));
        let mut ends: Vec<Timestamp> = ends.filter(|end| *end <= now).collect();
        ends.sort();
        ends.into_iter().fold(self.sequence, succeeding)
    }

    /// The X.509 authority that signs at `now`. `None` only where nobody kept the journal for half a CA's life.
    pub fn active_x509(&self, now: Timestamp) -> Option<&X509Slot> {
        plan::active(&self.x509, now)
    }

    /// The JWT authority that signs at `now`; let no token outlive the slot ([`Slot::time_left`]).
    pub fn active_jwt(&self, now: Timestamp) -> Option<&JwtSlot> {
        plan::active(&self.jwt, now)
    }

    /// Every X.509 slot, gone ones included until they are removed.
    pub fn x509_slots(&self) -> &[X509Slot] {
        &self.x509
    }

    /// Every JWT slot, gone ones included until they are removed.
    pub fn jwt_slots(&self) -> &[JwtSlot] {
        &self.jwt
    }

    /// The certificates of all X.509 authorities to be trusted at `now`: of a trust domain, or the control plane's roots.
    pub fn roots(&self, now: Timestamp) -> Vec<CaCertificate> {
        self.x509.iter().filter(|slot| slot.is_in_bundle(now)).map(|slot| slot.signer().certificate().clone()).collect()
    }

    /// The trust domain's bundle at `now`; `None` for the control plane, which has no trust domain.
    pub fn bundle(&self, refresh_hint: Duration, now: Timestamp) -> Option<Bundle> {
        let jwt = self.jwt.iter().filter(|slot| slot.is_in_bundle(now));
        Some(Bundle {
            trust_domain: self.trust_domain.clone()?,
            x509_authorities: self.roots(now),
            jwt_authorities: jwt.map(|slot| slot.signer().verification_key().clone()).collect(),
            sequence: self.sequence(now),
            refresh_hint,
        })
    }

    fn knows(&self, step: &Step) -> bool {
        let there = |id: &str| match step.kind {
            Kind::X509 => self.x509.iter().any(|slot| slot.id == id),
            Kind::Jwt => self.jwt.iter().any(|slot| slot.id == id),
        };
        match &step.action {
            Action::Prepare { .. } => true,
            Action::RetireAt { slot, .. } | Action::ActivateAt { slot, .. } | Action::Remove { slot } => there(slot),
        }
    }

    fn new_x509(
        &self,
        key_type: KeyType,
        keys: &mut impl KeySource,
        times: &Times,
    ) -> Result<(String, Stored<X509Authority>), JournalError> {
        let (id, key) = (keys.id()?, keys.key(key_type)?);
        let life = Duration::try_from(times.remove_at.duration_since(times.prepared_at)).unwrap_or(Duration::ZERO);
        let signer = match &self.trust_domain {
            Some(trust_domain) => X509Authority::self_signed(trust_domain, key.clone(), life, times.prepared_at)?,
            None => X509Authority::self_signed_control_plane(key.clone(), life, times.prepared_at)?,
        };
        Ok((id, Stored { signer: Arc::new(signer), key }))
    }
}

fn new_jwt(key_type: KeyType, keys: &mut impl KeySource) -> Result<(String, Stored<JwtAuthority>), JournalError> {
    let (id, key) = (keys.id()?, keys.key(key_type)?);
    let signer = JwtAuthority::new(&id, key.clone())?;
    Ok((id, Stored { signer: Arc::new(signer), key }))
}

fn actions(plan: &Plan, kind: Kind) -> impl Iterator<Item = Action> {
    plan.steps.iter().filter(move |step| step.kind == kind).map(|step| step.action.clone())
}

/// max(previous + 1, unix milliseconds of the change).
fn succeeding(previous: u64, change: Timestamp) -> u64 {
    previous.saturating_add(1).max(u64::try_from(change.as_millisecond()).unwrap_or(0))
}
