//! What is known of the cluster, and what follows from it for each session. Pure and synchronous: the watches apply
//! objects, `core` judges, and what a session's pod is entitled to is published on that session's channel. One change
//! touches what it concerns, never all pods.

mod domains;
mod effects;
mod entitlement;
mod identities;
mod object_changes;
mod pod_changes;
mod pods;
mod sessions;
mod shared;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use countersign_core::{
    entitlement::{DomainSpec, Judged, Labels, MissingConsent},
    id::TrustDomain,
    journal::AuthorityConfig,
};
use jiff::Timestamp;

use domains::Domains;
pub use domains::{DomainVerdict, Remote, Remotes};
pub use entitlement::{Absence, Entitlement};
use identities::Identities;
pub use identities::{IdentityKey, IdentityView};
use pods::Pods;
pub use pods::{DELETION_GRACE, PodRecord};
use sessions::Sessions;
pub use shared::{SharedIndex, Subscription};

/// Everything the watches told.
#[derive(Debug, Default)]
pub struct Index {
    pods: Pods,
    namespaces: BTreeMap<String, Labels>,
    domains: Domains,
    identities: Identities,
    sessions: Sessions,
    dirty: Dirty,
    /// Whether [`Self::accepted_authorities`] may be new.
    authorities_changed: bool,
    evaluated: u64,
}

/// Objects whose status may have to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// TrustDomains by name.
    pub domains: BTreeSet<String>,
    /// WorkloadIdentities.
    pub identities: BTreeSet<IdentityKey>,
}

impl Index {
    /// How many pods there are.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// How many namespaces there are.
    #[must_use]
    pub fn namespace_count(&self) -> usize {
        self.namespaces.len()
    }

    /// How many TrustDomains there are.
    #[must_use]
    pub fn domain_count(&self) -> usize {
        self.domains.len()
    }

    /// How many WorkloadIdentities there are.
    #[must_use]
    pub fn identity_count(&self) -> usize {
        self.identities.len()
    }

    /// How many sessions are watched.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many times an identity was matched with a pod because the identity changed.
    #[must_use]
    pub fn evaluated(&self) -> u64 {
        self.evaluated
    }

    /// Whether a pod exists and has not ended.
    #[must_use]
    pub fn alive(&self, uid: &str, now: Timestamp) -> bool {
        self.pods.alive(uid, now)
    }

    /// Whether a pod is known and has ended, so that it never comes back.
    #[must_use]
    pub fn ended(&self, uid: &str, now: Timestamp) -> bool {
        self.pods.has_ended(uid, now)
    }

    /// When the next pod ends by its deletion.
    #[must_use]
    pub fn next_deletion(&self) -> Option<Timestamp> {
        self.pods.next_deletion()
    }

    /// A pod by uid; it has ended if it has by the time as last told.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<PodRecord> {
        self.pods.record(uid)
    }

    /// What became of a TrustDomain; `None` when there is none of that name.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<DomainVerdict> {
        self.domains.verdict(name)
    }

    /// The accepted TrustDomains.
    #[must_use]
    pub fn accepted_domains(&self) -> Vec<Arc<DomainSpec>> {
        self.domains.names().filter_map(|name| self.domains.accepted(name)).collect()
    }

    /// The remote trust domains.
    #[must_use]
    pub fn accepted_remotes(&self) -> Remotes {
        self.domains.accepted_remotes()
    }

    /// The WorkloadIdentities that name a foreign trust domain: of each, what is missing, if anything is.
    #[must_use]
    pub fn users_of(&self, trust_domain: &TrustDomain) -> Vec<(IdentityKey, Option<MissingConsent>)> {
        let consent = |key: &IdentityKey| {
            let mut foreign = self.identities.judged(key)?.foreign().iter();
            let one = foreign.find(|one| one.trust_domain == *trust_domain)?;
            Some((key.clone(), one.consent.as_ref().err().cloned()))
        };
        self.identities.of_foreign(trust_domain).filter_map(consent).collect()
    }

    /// The authorities that this cluster has, by the names of their TrustDomains.
    #[must_use]
    pub fn accepted_authorities(&self) -> BTreeMap<String, AuthorityConfig> {
        self.domains.accepted_authorities()
    }

    /// What became of a WorkloadIdentity; `None` when there is none of that name.
    #[must_use]
    pub fn identity(&self, key: &IdentityKey) -> Option<IdentityView> {
        self.identities.view(key, &self.pods)
    }

    /// The names of an identity's pods that are alive and have an agent, and whose uids are such, in order.
    #[must_use]
    pub fn pods_with_agent(&self, key: &IdentityKey, is_such: impl Fn(&str) -> bool) -> Vec<String> {
        self.identities.with_agent(key, &self.pods, is_such).into_iter().map(str::to_owned).collect()
    }

    /// The uids of all pods that are alive and have an agent, and whose uids are such, each with its namespace.
    #[must_use]
    pub fn all_with_agent(&self, is_such: impl Fn(&str) -> bool) -> HashMap<String, String> {
        let such = self.pods.with_agent().filter(|(uid, _)| is_such(uid));
        such.map(|(uid, namespace)| (uid.to_owned(), namespace.to_owned())).collect()
    }

    /// The objects whose status may have to change since the last call; for those who write none, so that the list does not grow.
    pub fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    /// The WorkloadIdentities of a TrustDomain that are admitted now.
    #[must_use]
    pub fn admitted_by(&self, domain: &str) -> BTreeSet<IdentityKey> {
        let admitted = |key: &IdentityKey| self.identities.judged(key).is_some_and(Judged::is_admitted);
        self.identities.of_domain(domain).into_iter().filter(admitted).collect()
    }
}

#[cfg(test)]
mod claims_tests;
#[cfg(test)]
mod tests;
