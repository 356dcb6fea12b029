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
mod rotation;
mod slot;
mod stored;

#[cfg(test)]
mod formats_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

pub use authority::{Active, Authority, AuthoritySlot, JwtEntry, X509Entry, names_key_id};
pub use config::AuthorityConfig;
pub use envelope::{Format, MAX_LENGTH};
pub use error::JournalError;
pub use kind::Kind;
pub use making::{AuthorityMaker, AuthorityRequest, LocalMaker, MadeAuthority, Making};
pub use plan::{Action, AuthorityPolicy, Plan, Receipts, RotationRequests, Step, SwitchReason};
pub use rotation::{MAX_AUTHORITIES, NOTICE, UNANNOUNCED_NOTICE, whole_after};
pub use slot::{Slot, State, Times};
pub use stored::Expected;

use crate::bundle::{Bundle, succeeding};
use crate::id::TrustDomain;
use crate::jwt::JwtAuthority;
use crate::wit::WitAuthority;
use crate::x509::{CaCertificate, X509Authority};
use format2::UnknownSlot;
use rotation::Orders;

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

/// What is due at `now`. The control plane has no JWT authorities, and nobody asks for anything or reports anything there.
pub fn next(
    journal: &Journal,
    policy: &AuthorityPolicy,
    requests: &RotationRequests,
    receipts: &Receipts,
    now: Timestamp,
) -> Plan {
    let of = |kind: Kind| {
        let orders = journal.orders(kind, requests, receipts, now);
        let actions = rotation::next_actions(kind, journal.slots(kind), policy, &orders, now);
        actions.into_iter().map(move |action| Step { kind, action })
    };
    Plan { steps: journal.kinds(policy).flat_map(of).collect() }
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
        let plan = next(&empty, policy, &RotationRequests::default(), &Receipts::default(), now);
        empty.apply(&plan, policy, maker, now).await
    }

    /// The journal after `plan`, which [`next`] made from this journal. An empty plan changes nothing. An authority that cannot be
    /// made is left out, with what would make room for it, so that nobody who makes authorities can keep a key from being
    /// revoked; it is due again.
    ///
    /// # Errors
    /// [`JournalError::StalePlan`] when the plan names a slot that is not there; when authorities cannot be made and nothing else
    /// is due.
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
        let (mut failed, mut is_changed) = (BTreeMap::new(), false);
        for Step { kind, action } in &plan.steps {
            let slots = authorities.entry(*kind).or_default();
            match action {
                Action::Prepare { times, .. } => match self.prepare(*kind, *times, policy, maker).await {
                    Ok(slot) => slots.push(slot),
                    Err(error) => {
                        failed.insert(*kind, error);
                        continue;
                    }
                },
                // Its successor is missing.
                Action::RetireAt { .. } if failed.contains_key(kind) => continue,
                other => plan::change(slots, other),
            }
            is_changed = true;
        }
        match failed.into_values().next() {
            // A first journal is made as a whole.
            Some(error) if !is_changed || self.authorities.is_empty() => return Err(error),
            _ => {}
        }
        // A format 1 journal has every kind.
        let of_trust_domain = self.trust_domain.is_some();
        let has_every_kind = Kind::ALL.into_iter().filter(|kind| kind.belongs(of_trust_domain)).all(|kind| {
            !kind.is_in_every_first_format() || authorities.get(&kind).is_some_and(|slots| !slots.is_empty())
        });
        let format = if has_every_kind { self.format } else { Format::V2 };
        let sequence = succeeding(self.sequence(now), now);
        Ok(Self { generation: self.generation.saturating_add(1), sequence, format, authorities, ..self.clone() })
    }

    /// The next moment after `now` at which a state changes or something is due; look again then. `None`: never.
    pub fn next_change(
        &self,
        policy: &AuthorityPolicy,
        requests: &RotationRequests,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let known =
            self.kinds(policy).filter_map(|kind| rotation::next_change(self.slots(kind), policy, requests.after, now));
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
        let slot = rotation::active(self.slots(Kind::X509), now)?;
        Active::new(slot, slot.authority.x509()?.signer())
    }

    /// The JWT authority that signs at `now`; let no token outlive the slot ([`Active::time_left`]).
    pub fn active_jwt(&self, now: Timestamp) -> Option<Active<'_, JwtAuthority>> {
        let slot = rotation::active(self.slots(Kind::Jwt), now)?;
        Active::new(slot, slot.authority.jwt()?.signer())
    }

    /// The WIT authority that signs at `now`; let no token outlive the slot ([`Active::time_left`]). `None` also where the trust domain
    /// has none.
    pub fn active_wit(&self, now: Timestamp) -> Option<Active<'_, WitAuthority>> {
        let slot = rotation::active(self.slots(Kind::Wit), now)?;
        Active::new(slot, slot.authority.wit()?.signer())
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
        let wit = self.trusted(Kind::Wit, now).filter_map(Authority::wit);
        Some(Bundle {
            trust_domain: self.trust_domain.clone()?,
            x509_authorities: self.roots(now),
            jwt_authorities: jwt.map(|authority| authority.verification_key().clone()).collect(),
            wit_authorities: wit.map(|authority| authority.verification_key().clone()).collect(),
            sequence: self.sequence(now),
            refresh_hint,
        })
    }

    /// The names in `requested` that are those of no slot: of one that is gone, or of none that there ever was.
    pub fn unknown_names<'a>(&'a self, requested: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
        let slots = || self.authorities.values().flatten();
        let is_unknown = |name: &&String| !slots().any(|slot| slot.is_named(name));
        requested.into_iter().filter(is_unknown).map(String::as_str).collect()
    }

    fn orders(&self, kind: Kind, requests: &RotationRequests, receipts: &Receipts, now: Timestamp) -> Orders {
        let named = |names: &BTreeSet<String>| {
            let slots = self.slots(kind).iter().filter(|slot| names.iter().any(|name| slot.is_named(name)));
            slots.map(|slot| slot.id.clone()).collect()
        };
        Orders {
            after: requests.after,
            tainted: named(&requests.tainted),
            revoked: named(&requests.revoked),
            acknowledged: receipts.acknowledged.is_some_and(|sequence| sequence >= self.sequence(now)),
            replaced: receipts.replaced.clone(),
        }
    }

    /// The kinds of which it has authorities, or is to have.
    fn kinds(&self, policy: &AuthorityPolicy) -> impl Iterator<Item = Kind> {
        let of_trust_domain = self.trust_domain.is_some();
        let wanted = move |kind: &Kind| policy.enables(*kind) || !self.slots(*kind).is_empty();
        Kind::ALL.into_iter().filter(move |kind| kind.belongs(of_trust_domain)).filter(wanted)
    }

    fn trusted(&self, kind: Kind, now: Timestamp) -> impl Iterator<Item = &Authority> {
        self.slots(kind).iter().filter(move |slot| slot.is_in_bundle(now)).map(|slot| &slot.authority)
    }

    fn knows(&self, step: &Step) -> bool {
        let there = |id: &String| self.slots(step.kind).iter().any(|known| known.id == *id);
        match &step.action {
            Action::Prepare { .. } => true,
            Action::SwitchAt { from, to, .. } => there(from) && there(to),
            Action::RetireAt { slot, .. }
            | Action::ActivateAt { slot, .. }
            | Action::Taint { slot, .. }
            | Action::Revoke { slot }
            | Action::Remove { slot } => there(slot),
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
