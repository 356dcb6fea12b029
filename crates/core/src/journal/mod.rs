//! The journal of authorities: for each kind a few slots, each prepared, then active, then retiring, then gone.
//! States follow from (journal, now); [`next`] decides what is due. A journal that cannot be used is an error, never a new
//! root.

mod authority;
mod config;
mod envelope;
mod error;
mod format1;
mod format2;
mod kind;
mod making;
mod plan;
mod slot;
mod stored;

#[cfg(test)]
mod formats_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

pub use authority::{Active, Authority, AuthoritySlot, JwtEntry, X509Entry};
pub use config::AuthorityConfig;
pub use envelope::{Format, MAX_LENGTH};
pub use error::JournalError;
pub use kind::Kind;
pub use making::{AuthorityMaker, AuthorityRequest, LocalMaker, MadeAuthority, Making};
pub use plan::{Action, AuthorityPolicy, Plan, Step};
pub use slot::{Slot, State, Times};
pub use stored::Expected;

use crate::bundle::Bundle;
use crate::id::TrustDomain;
use crate::jwt::JwtAuthority;
use crate::x509::{CaCertificate, X509Authority};
use format2::UnknownSlot;

/// The authorities of a trust domain, or of the control plane, and their keys. `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct Journal {
    cluster: String,
    trust_domain: Option<TrustDomain>,
    generation: u64,
    sequence: u64,
    /// The least format that it is written in.
    format: Format,
    authorities: BTreeMap<Kind, Vec<AuthoritySlot>>,
    /// Of kinds that this release does not know, by the kind's name in the stored form.
    unknown: BTreeMap<String, Vec<UnknownSlot>>,
}

/// What is due at `now`. The control plane has no JWT authorities.
pub fn next(journal: &Journal, policy: &AuthorityPolicy, now: Timestamp) -> Plan {
    let of = |kind: Kind| {
        plan::next_actions(journal.slots(kind), policy, now).into_iter().map(move |action| Step { kind, action })
    };
    Plan { steps: journal.kinds().flat_map(of).collect() }
}

impl Journal {
    /// A new journal with its first authorities, which sign at once. `trust_domain` `None`: the control plane's. Only for
    /// where there has never been one.
    ///
    /// # Errors
    /// When an authority cannot be made.
    pub async fn create(
        cluster: &str,
        trust_domain: Option<&TrustDomain>,
        policy: &AuthorityPolicy,
        maker: &dyn AuthorityMaker,
        now: Timestamp,
    ) -> Result<Self, JournalError> {
        let empty = Self {
            cluster: cluster.to_owned(),
            trust_domain: trust_domain.cloned(),
            generation: 0,
            sequence: 0,
            format: Format::V1,
            authorities: BTreeMap::new(),
            unknown: BTreeMap::new(),
        };
        empty.apply(&next(&empty, policy, now), policy, maker, now).await
    }

    /// The journal after `plan`, which [`next`] made from this journal. An empty plan changes nothing.
    ///
    /// # Errors
    /// [`JournalError::StalePlan`] when the plan names a slot that is not there; when an authority cannot be made.
    pub async fn apply(
        &self,
        plan: &Plan,
        policy: &AuthorityPolicy,
        maker: &dyn AuthorityMaker,
        now: Timestamp,
    ) -> Result<Self, JournalError> {
        if plan.is_empty() {
            return Ok(self.clone());
        }
        if !plan.steps.iter().all(|step| self.knows(step)) {
            return Err(JournalError::StalePlan { at: now });
        }
        let mut authorities = self.authorities.clone();
        for Step { kind, action } in &plan.steps {
            let slots = authorities.entry(*kind).or_default();
            match action {
                Action::Prepare { times, .. } => slots.push(self.prepare(*kind, *times, policy, maker).await?),
                other => plan::change(slots, other),
            }
        }
        let sequence = succeeding(self.sequence(now), now);
        Ok(Self { generation: self.generation.saturating_add(1), sequence, authorities, ..self.clone() })
    }

    /// The next moment after `now` at which a state changes or something is due; look again then. `None`: never.
    pub fn next_change(&self, policy: &AuthorityPolicy, now: Timestamp) -> Option<Timestamp> {
        let known = self.kinds().filter_map(|kind| plan::next_change(self.slots(kind), policy, now));
        let unknown = self.unknown.values().flatten().map(UnknownSlot::remove_at).filter(|at| *at > now);
        known.chain(unknown).min()
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
    /// change, and with every slot whose end has come since; so it is the same at every replica, also at those that do not
    /// know a kind in it.
    pub fn sequence(&self, now: Timestamp) -> u64 {
        let known = self.authorities.values().flatten().map(|slot| slot.times.remove_at);
        let unknown = self.unknown.values().flatten().map(UnknownSlot::remove_at);
        let mut ends: Vec<Timestamp> = known.chain(unknown).filter(|end| *end <= now).collect();
        ends.sort();
        ends.into_iter().fold(self.sequence, succeeding)
    }

    /// Every slot of a kind, gone ones included until they are removed.
    pub fn slots(&self, kind: Kind) -> &[AuthoritySlot] {
        self.authorities.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// The X.509 authority that signs at `now`. `None` only where nobody kept the journal for half a CA's life, or where its
    /// key cannot be used.
    pub fn active_x509(&self, now: Timestamp) -> Option<Active<'_, X509Authority>> {
        let slot = plan::active(self.slots(Kind::X509), now)?;
        Active::new(slot, slot.authority.x509()?.signer())
    }

    /// The JWT authority that signs at `now`; let no token outlive the slot ([`Active::time_left`]).
    pub fn active_jwt(&self, now: Timestamp) -> Option<Active<'_, JwtAuthority>> {
        let slot = plan::active(self.slots(Kind::Jwt), now)?;
        Active::new(slot, slot.authority.jwt()?.signer())
    }

    /// The certificates to be trusted at `now`, each once: of a trust domain, or the control plane's roots.
    pub fn roots(&self, now: Timestamp) -> Vec<CaCertificate> {
        let mut roots: Vec<CaCertificate> = Vec::new();
        for anchor in self.trusted(Kind::X509, now).filter_map(Authority::x509).flat_map(X509Entry::trust_anchors) {
            if !roots.contains(anchor) {
                roots.push(anchor.clone());
            }
        }
        roots
    }

    /// The trust domain's bundle at `now`; `None` for the control plane, which has no trust domain.
    pub fn bundle(&self, refresh_hint: Duration, now: Timestamp) -> Option<Bundle> {
        let jwt = self.trusted(Kind::Jwt, now).filter_map(Authority::jwt);
        Some(Bundle {
            trust_domain: self.trust_domain.clone()?,
            x509_authorities: self.roots(now),
            jwt_authorities: jwt.map(|authority| authority.verification_key().clone()).collect(),
            sequence: self.sequence(now),
            refresh_hint,
        })
    }

    /// The kinds of which it has authorities.
    fn kinds(&self) -> impl Iterator<Item = Kind> {
        let of_trust_domain = self.trust_domain.is_some();
        Kind::ALL.into_iter().filter(move |kind| kind.belongs(of_trust_domain))
    }

    fn trusted(&self, kind: Kind, now: Timestamp) -> impl Iterator<Item = &Authority> {
        self.slots(kind).iter().filter(move |slot| slot.is_in_bundle(now)).map(|slot| &slot.authority)
    }

    fn knows(&self, step: &Step) -> bool {
        match &step.action {
            Action::Prepare { .. } => true,
            Action::RetireAt { slot, .. } | Action::ActivateAt { slot, .. } | Action::Remove { slot } => {
                self.slots(step.kind).iter().any(|known| known.id == *slot)
            }
        }
    }

    async fn prepare(
        &self,
        kind: Kind,
        times: Times,
        policy: &AuthorityPolicy,
        maker: &dyn AuthorityMaker,
    ) -> Result<AuthoritySlot, JournalError> {
        let request = AuthorityRequest {
            kind,
            trust_domain: self.trust_domain.clone(),
            key_type: policy.key_type(kind),
            from: times.prepared_at,
            life: Duration::try_from(times.remove_at.duration_since(times.prepared_at)).unwrap_or(Duration::ZERO),
        };
        let MadeAuthority { id, authority } = maker.make(request).await?;
        let slot = Slot { id, times, tainted_at: None, authority };
        self.check_slot(kind, &slot).map_err(|what| JournalError::Made { kind, what })?;
        Ok(slot)
    }
}

/// max(previous + 1, unix milliseconds of the change).
fn succeeding(previous: u64, change: Timestamp) -> u64 {
    previous.saturating_add(1).max(u64::try_from(change.as_millisecond()).unwrap_or(0))
}
