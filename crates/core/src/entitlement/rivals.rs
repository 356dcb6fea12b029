//! The claims to one and the same shape, ordered by age, and the oldest of all that overlap with it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::claim::{ClaimKey, ClaimKind};
use crate::id::TrustDomain;

/// Who claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claimant {
    /// The WorkloadIdentity's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its creationTimestamp.
    pub created: Timestamp,
}

/// A claim with its age. The older one is less: by the time since when it counts, then by creation, then by uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aged {
    pub(super) since: Timestamp,
    pub(super) claimant: Arc<Claimant>,
}

impl Aged {
    /// For whom it is claimed: those of one owner do not exclude each other.
    pub(super) fn owner(&self, kind: ClaimKind) -> &str {
        match kind {
            ClaimKind::Path => &self.claimant.uid,
            ClaimKind::DnsName => &self.claimant.namespace,
        }
    }

    fn precedence(&self) -> (Timestamp, Timestamp, &str) {
        (self.since, self.claimant.created, &self.claimant.uid)
    }
}

impl Ord for Aged {
    fn cmp(&self, other: &Self) -> Ordering {
        self.precedence().cmp(&other.precedence())
    }
}

impl PartialOrd for Aged {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The oldest claim, and the oldest of another owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Oldest {
    pub(super) first: Option<Aged>,
    pub(super) second: Option<Aged>,
}

impl Oldest {
    pub(super) fn merge(self, other: Self, kind: ClaimKind) -> Self {
        let mut all: Vec<Aged> = [self.first, self.second, other.first, other.second].into_iter().flatten().collect();
        all.sort_unstable();
        let mut all = all.into_iter();
        let first = all.next();
        let owner = first.as_ref().map(|first| first.owner(kind).to_owned());
        let second = all.find(|next| Some(next.owner(kind)) != owner.as_deref());
        Self { first, second }
    }

    /// The oldest that is not of `owner`.
    pub(super) fn of_another(&self, owner: &str, kind: ClaimKind) -> Option<&Aged> {
        [&self.first, &self.second].into_iter().flatten().find(|aged| aged.owner(kind) != owner)
    }

    pub(super) fn has(&self, aged: &Aged) -> bool {
        self.first.as_ref() == Some(aged) || self.second.as_ref() == Some(aged)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Aged> {
        [&self.first, &self.second].into_iter().flatten()
    }
}

/// All claims to one shape.
#[derive(Clone, Debug)]
pub(super) struct Rivals {
    pub(super) trust_domain: TrustDomain,
    pub(super) claim: ClaimKey,
    /// The oldest claim of each owner.
    order: BTreeSet<Aged>,
    /// The claims of each owner, where an owner may have several.
    by_owner: BTreeMap<Box<str>, BTreeSet<Aged>>,
    /// The oldest of all claims that overlap, those to this shape among them.
    pub(super) oldest: Oldest,
}

impl Rivals {
    pub(super) fn new(trust_domain: TrustDomain, claim: ClaimKey) -> Self {
        Self { trust_domain, claim, order: BTreeSet::new(), by_owner: BTreeMap::new(), oldest: Oldest::default() }
    }

    pub(super) fn insert(&mut self, aged: Aged) {
        if self.claim.kind == ClaimKind::Path {
            self.order.insert(aged);
            return;
        }
        let own = self.by_owner.entry(aged.owner(self.claim.kind).into()).or_default();
        if own.first().is_none_or(|first| aged < *first) {
            if let Some(first) = own.first() {
                self.order.remove(first);
            }
            self.order.insert(aged.clone());
        }
        own.insert(aged);
    }

    pub(super) fn remove(&mut self, aged: &Aged) {
        let was_first = self.order.remove(aged);
        let owner = aged.owner(self.claim.kind);
        let Some(own) = self.by_owner.get_mut(owner) else { return };
        own.remove(aged);
        match own.first() {
            Some(next) if was_first => drop(self.order.insert(next.clone())),
            Some(_) => {}
            None => drop(self.by_owner.remove(owner)),
        }
    }

    /// The oldest of this shape.
    pub(super) fn own_oldest(&self) -> Oldest {
        let mut order = self.order.iter().cloned();
        Oldest { first: order.next(), second: order.next() }
    }

    /// The oldest claim of an owner that may have several.
    pub(super) fn first_of(&self, owner: &str) -> Option<&Aged> {
        self.by_owner.get(owner).and_then(BTreeSet::first)
    }

    /// Whether what an owner claims is lost to another.
    pub(super) fn loses(&self, owner: &str) -> bool {
        let own = self.first_of(owner);
        own.zip(self.oldest.of_another(owner, self.claim.kind)).is_some_and(|(own, other)| other < own)
    }

    /// Everyone who claims for an owner that may have several claims.
    pub(super) fn claimants_of(&self, owner: &str) -> impl Iterator<Item = &Arc<Claimant>> {
        self.by_owner.get(owner).into_iter().flatten().map(|aged| &aged.claimant)
    }

    /// The claim to which this one, which is among the rivals, is lost.
    pub(super) fn lost_to(&self, aged: &Aged) -> Option<&Aged> {
        let owner = aged.owner(self.claim.kind);
        let own = self.first_of(owner).unwrap_or(aged);
        self.oldest.of_another(owner, self.claim.kind).filter(|other| *other < own)
    }

    /// Those whose outcome may differ when `oldest` is no longer what it was: the owner that held and the one that holds.
    pub(super) fn concerned(&self, before: &Oldest) -> Vec<Arc<Claimant>> {
        let kind = self.claim.kind;
        let holders = [&before.first, &self.oldest.first].into_iter().flatten();
        let mut concerned = BTreeSet::new();
        for holder in holders {
            match kind {
                ClaimKind::Path => concerned.extend(self.order.get(holder).map(|aged| aged.claimant.clone())),
                ClaimKind::DnsName => {
                    let own = self.by_owner.get(holder.owner(kind)).into_iter().flatten();
                    concerned.extend(own.map(|aged| aged.claimant.clone()));
                }
            }
        }
        concerned.into_iter().collect()
    }

    /// Everyone who claims.
    pub(super) fn claimants(&self) -> impl Iterator<Item = &Arc<Claimant>> {
        let single = self.order.iter().filter(|_| self.by_owner.is_empty());
        single.chain(self.by_owner.values().flatten()).map(|aged| &aged.claimant)
    }

    pub(super) fn len(&self) -> usize {
        if self.by_owner.is_empty() { self.order.len() } else { self.by_owner.values().map(BTreeSet::len).sum() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
