//! Which of several claims to one name holds. Each id has one owner (R32): the oldest claim that is granted; each DNS name
//! has one namespace. Claims are ordered by their own age, so an update never takes what another holds.
//!
//! Who claims the same shape is kept together, with the oldest claim that overlaps. So whether a claim holds is known without
//! a search, and a change concerns at most the claim that held and the one that holds from now on: the others lose as before,
//! to somebody else. To whom is renewed by [`Claims::take_renamed`], many changes at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::claim::{ClaimHistory, ClaimKey, ClaimKind, Standing, UNRECORDED, claims_of, not_before};
pub use super::rivals::Claimant;
use super::rivals::{Aged, Oldest, Rivals};
use super::shapes::Shapes;
use super::spec::IdentitySpec;
use crate::id::TrustDomain;

/// Up to so many claimants of one shape are concerned at once when another claim holds it; more than that are left to
/// [`Claims::take_renamed`].
const RENAMED_AT_ONCE: usize = 32;

/// The granted claims of all namespaces.
///
/// Only claims that [`admit`](super::admit) accepts belong here: what is not granted takes nothing from anybody.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    shapes: BTreeMap<(TrustDomain, ClaimKind), Shapes>,
    rivals: HashMap<u64, Rivals>,
    entered: HashMap<Arc<str>, Entered>,
    next: u64,
    renamed: BTreeSet<u64>,
    /// No claim known so far counts from later than this.
    latest: Timestamp,
    visited: u64,
}

#[derive(Clone, Debug)]
struct Entered {
    trust_domain: TrustDomain,
    claims: BTreeMap<ClaimKey, (u64, Aged)>,
}

/// A claim that an older one of another excludes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostClaim {
    /// What was claimed.
    pub claim: ClaimKey,
    /// The namespace of the WorkloadIdentity that holds it.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Claims {
    /// Enters the claims of a granted identity, in place of those entered before under the same uid. The answer is whose
    /// outcome may differ by that, beside the identity's own.
    pub fn insert(&mut self, identity: &IdentitySpec, history: &ClaimHistory) -> Vec<Arc<Claimant>> {
        let claimant = Arc::new(Claimant {
            namespace: identity.namespace.clone(),
            name: identity.name.clone(),
            uid: identity.uid.clone(),
            created: identity.created,
        });
        let aged = |claim: ClaimKey| {
            let since = history.since(&claim, identity.created);
            (claim, Aged { since, claimant: claimant.clone() })
        };
        let claims = claims_of(identity).into_iter().map(aged).collect();
        self.replace(&identity.uid, Some((&identity.trust_domain, claims)))
    }

    /// Takes the claims of an identity out, if they are there. The answer is whose outcome may differ by that.
    pub fn remove(&mut self, uid: &str) -> Vec<Arc<Claimant>> {
        self.replace(uid, None)
    }

    /// The claims of an identity that others hold, those of the oldest holder first. Whether a holder has lost claims itself
    /// does not matter: so taking an object away never takes anything from another. Claims that were not entered are the
    /// youngest.
    pub fn lost(&self, identity: &IdentitySpec) -> Vec<LostClaim> {
        let mut lost: Vec<(Aged, ClaimKey)> = match self.entered.get(identity.uid.as_str()) {
            Some(entered) => {
                let held_by = |(claim, (id, aged)): (&ClaimKey, &(u64, Aged))| {
                    Some((self.rivals.get(id)?.lost_to(aged)?.clone(), claim.clone()))
                };
                entered.claims.iter().filter_map(held_by).collect()
            }
            None => {
                let oldest = |claim: ClaimKey| {
                    let (oldest, _) = self.search(&identity.trust_domain, &claim);
                    let owner = match claim.kind {
                        ClaimKind::Path => &identity.uid,
                        ClaimKind::DnsName => &identity.namespace,
                    };
                    Some((oldest.of_another(owner, claim.kind)?.clone(), claim))
                };
                claims_of(identity).into_iter().filter_map(oldest).collect()
            }
        };
        lost.sort_unstable_by(|(a, a_claim), (b, b_claim)| a.cmp(b).then_with(|| a_claim.cmp(b_claim)));
        let named = |(holder, claim): (Aged, ClaimKey)| LostClaim {
            claim,
            namespace: holder.claimant.namespace.clone(),
            name: holder.claimant.name.clone(),
        };
        lost.into_iter().map(named).collect()
    }

    /// Those who lose to somebody else than when this was asked last, and have not been named since.
    pub fn take_renamed(&mut self) -> Vec<Arc<Claimant>> {
        let renamed = std::mem::take(&mut self.renamed);
        let all = renamed.iter().filter_map(|id| self.rivals.get(id)).flat_map(Rivals::claimants).cloned();
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether [`Self::take_renamed`] has somebody to name.
    pub fn has_renamed(&self) -> bool {
        !self.renamed.is_empty()
    }

    /// How many nodes were looked at so far to find overlapping claims.
    pub fn visited(&self) -> u64 {
        self.visited
    }

    /// What the leader is to record of an identity's claims at `now`; `None`: still nothing. What is recorded never changes
    /// who holds: a claim that holds is recorded as what it is, one that loses as the youngest of all that are known.
    pub fn record(
        &mut self,
        identity: &IdentitySpec,
        history: &ClaimHistory,
        standing: Standing,
        now: Timestamp,
    ) -> Option<BTreeMap<ClaimKey, Timestamp>> {
        match standing {
            Standing::Unknown => return history.kept(&claims_of(identity)),
            Standing::NotGranted => return Some(BTreeMap::new()),
            Standing::Granted => {}
        }
        let mut recorded = history.kept(&claims_of(identity)).unwrap_or_default();
        let Some(entered) = self.entered.get(identity.uid.as_str()) else { return Some(recorded) };
        let mut latest = self.latest;
        for (claim, (id, aged)) in &entered.claims {
            if recorded.contains_key(claim) {
                continue;
            }
            let original = *history == ClaimHistory::Original;
            let since = match self.rivals.get(id).and_then(|rivals| rivals.lost_to(aged)) {
                // Its turn comes once its holder is recorded: then it is the younger one for good.
                Some(holder) if holder.since == UNRECORDED => continue,
                Some(_) => {
                    let next = latest.checked_add(Duration::from_micros(1)).unwrap_or(latest);
                    (if original { not_before(identity.created) } else { whole_micros(now) }).max(next)
                }
                None if original => identity.created,
                None => whole_micros(now),
            };
            latest = latest.max(since);
            recorded.insert(claim.clone(), since);
        }
        self.latest = latest;
        Some(recorded)
    }

    fn replace(&mut self, uid: &str, new: Option<(&TrustDomain, BTreeMap<ClaimKey, Aged>)>) -> Vec<Arc<Claimant>> {
        let old = self.entered.remove(uid);
        let mut kept = BTreeMap::new();
        let mut changed = BTreeMap::new();
        // Whether an owner's claims to a shape were lost before: the others of that owner share the outcome.
        let mut lost_before: BTreeMap<(u64, Box<str>), bool> = BTreeMap::new();
        let mut note = |id: u64, rivals: &Rivals, aged: &Aged| {
            let owner = aged.owner(rivals.claim.kind);
            lost_before.entry((id, owner.into())).or_insert_with(|| rivals.loses(owner));
        };
        for (claim, (id, aged)) in old.iter().flat_map(|old| &old.claims) {
            let same = new.as_ref().is_some_and(|(trust_domain, claims)| {
                old.as_ref().is_some_and(|old| old.trust_domain == **trust_domain) && claims.get(claim) == Some(aged)
            });
            if same {
                kept.insert(claim.clone(), (*id, aged.clone()));
            } else if let Some(rivals) = self.rivals.get_mut(id) {
                changed.entry(*id).or_insert_with(|| rivals.own_oldest());
                note(*id, rivals, aged);
                rivals.remove(aged);
            }
        }
        if let Some((trust_domain, claims)) = new {
            for (claim, aged) in claims {
                if kept.contains_key(&claim) {
                    continue;
                }
                let id = self.rivals_of(trust_domain, &claim);
                let Some(rivals) = self.rivals.get_mut(&id) else { continue };
                changed.entry(id).or_insert_with(|| rivals.own_oldest());
                if aged.since != UNRECORDED {
                    self.latest = self.latest.max(aged.since).max(not_before(aged.claimant.created));
                }
                note(id, rivals, &aged);
                rivals.insert(aged.clone());
                kept.insert(claim, (id, aged));
            }
            self.entered.insert(uid.into(), Entered { trust_domain: trust_domain.clone(), claims: kept });
        }
        let mut concerned = self.settle(changed);
        for ((id, owner), before) in lost_before {
            let Some(rivals) = self.rivals.get(&id).filter(|rivals| rivals.loses(&owner) != before) else { continue };
            concerned.extend(rivals.claimants_of(&owner).cloned());
        }
        concerned.retain(|claimant| claimant.uid != uid);
        concerned.into_iter().collect()
    }

    /// The rivals for a shape; made if there are none.
    fn rivals_of(&mut self, trust_domain: &TrustDomain, claim: &ClaimKey) -> u64 {
        let next = &mut self.next;
        let shapes = self.shapes.entry((trust_domain.clone(), claim.kind)).or_default();
        let id = shapes.entry(claim, || {
            *next += 1;
            *next
        });
        if !self.rivals.contains_key(&id) {
            let mut rivals = Rivals::new(trust_domain.clone(), claim.clone());
            rivals.oldest = self.look_up(trust_domain, claim);
            self.rivals.insert(id, rivals);
        }
        id
    }

    /// Brings what is known of overlaps up to date with the rivals of shapes that changed, given what was the oldest of each
    /// before. The answer is who may have won or lost something.
    fn settle(&mut self, changed: BTreeMap<u64, Oldest>) -> BTreeSet<Arc<Claimant>> {
        let mut concerned = BTreeSet::new();
        for (id, before) in &changed {
            let Some(rivals) = self.rivals.get(id) else { continue };
            let (kind, after) = (rivals.claim.kind, rivals.own_oldest());
            if after == *before {
                continue;
            }
            let (trust_domain, claim) = (rivals.trust_domain.clone(), rivals.claim.clone());
            let gone: Vec<&Aged> = before.iter().filter(|aged| !after.has(aged)).collect();
            for id in self.overlapping(&trust_domain, &claim) {
                let Some(other) = self.rivals.get(&id) else { continue };
                let oldest = if gone.iter().any(|aged| other.oldest.has(aged)) {
                    let claim = other.claim.clone();
                    self.look_up(&trust_domain, &claim)
                } else {
                    other.oldest.clone().merge(after.clone(), kind)
                };
                concerned.extend(self.set_oldest(id, oldest));
            }
        }
        for id in changed.keys() {
            self.forget_if_empty(*id);
        }
        concerned
    }

    fn set_oldest(&mut self, id: u64, oldest: Oldest) -> Vec<Arc<Claimant>> {
        let Some(rivals) = self.rivals.get_mut(&id) else { return Vec::new() };
        if rivals.oldest == oldest {
            return Vec::new();
        }
        let before = std::mem::replace(&mut rivals.oldest, oldest);
        if before.first == rivals.oldest.first {
            return rivals.concerned(&before);
        }
        if rivals.len() <= RENAMED_AT_ONCE {
            return rivals.claimants().cloned().collect();
        }
        self.renamed.insert(id);
        rivals.concerned(&before)
    }

    fn forget_if_empty(&mut self, id: u64) {
        if self.rivals.get(&id).is_none_or(|rivals| !rivals.is_empty()) {
            return;
        }
        let Some(rivals) = self.rivals.remove(&id) else { return };
        self.renamed.remove(&id);
        let key = (rivals.trust_domain, rivals.claim.kind);
        if let Some(shapes) = self.shapes.get_mut(&key) {
            shapes.remove(&rivals.claim);
            if shapes.is_empty() {
                self.shapes.remove(&key);
            }
        }
    }

    fn overlapping(&mut self, trust_domain: &TrustDomain, claim: &ClaimKey) -> Vec<u64> {
        let found = self.shapes.get(&(trust_domain.clone(), claim.kind)).map(|shapes| shapes.overlapping(claim));
        let found = found.unwrap_or_default();
        self.visited += found.visited;
        found.entries
    }

    fn look_up(&mut self, trust_domain: &TrustDomain, claim: &ClaimKey) -> Oldest {
        let (oldest, visited) = self.search(trust_domain, claim);
        self.visited += visited;
        oldest
    }

    /// The oldest of all claims that overlap, and how many nodes were looked at.
    fn search(&self, trust_domain: &TrustDomain, claim: &ClaimKey) -> (Oldest, u64) {
        let Some(shapes) = self.shapes.get(&(trust_domain.clone(), claim.kind)) else { return (Oldest::default(), 0) };
        let found = shapes.overlapping(claim);
        let rivals = found.entries.iter().filter_map(|id| self.rivals.get(id)).map(Rivals::own_oldest);
        (rivals.fold(Oldest::default(), |all, own| all.merge(own, claim.kind)), found.visited)
    }
}

/// As it is written: a status holds no finer time.
fn whole_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
#[path = "conflict_tests.rs"]
mod tests;
