//! Namespaces, TrustDomains and WorkloadIdentities that came, changed and went, and what would follow from one.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use countersign_core::{
    entitlement::{ClaimKey, DeclaredDomain, DeclaredIdentity, Labels},
    id::TrustDomain,
};
use jiff::Timestamp;

use crate::{
    Index,
    identities::{IdentityKey, IdentityView, Surroundings},
};

impl Index {
    /// A namespace came or its labels changed.
    pub fn apply_namespace(&mut self, name: &str, labels: Labels) {
        if self.namespaces.get(name) == Some(&labels) {
            return;
        }
        self.namespaces.insert(name.to_owned(), labels);
        self.judge(self.identities.of_namespace(name));
    }

    /// A namespace is gone; its objects' own watches tell of them.
    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.judge(self.identities.of_namespace(name));
        }
    }

    /// Namespaces that are not among `present` are gone.
    pub fn retain_namespaces(&mut self, present: &HashSet<&str>) {
        let gone: Vec<_> = self.namespaces.keys().filter(|name| !present.contains(name.as_str())).cloned().collect();
        gone.iter().for_each(|name| self.remove_namespace(name));
    }

    /// A TrustDomain came or changed.
    pub fn apply_domain(&mut self, declared: DeclaredDomain) {
        let DeclaredDomain { name, spec, authority, remote } = declared;
        self.dirty.domains.insert(name.clone());
        if self.domains.set_authority(&name, authority) {
            self.authorities_changed = true;
            // Whether an issuer is unique depends on all of them.
            self.dirty.domains.extend(self.domains.names().cloned());
        }
        self.authorities_changed |= self.domains.set_remote(&name, remote);
        if matches!((self.domains.stored(&name), &spec), (Some(Ok(old)), Ok(new)) if **old == *new) {
            return;
        }
        let before = self.domains.trust_domain(&name);
        let touched = self.domains.insert(&name, spec);
        let after = self.domains.trust_domain(&name);
        self.domains_changed(touched, before.into_iter().chain(after));
    }

    /// A TrustDomain is gone.
    pub fn remove_domain(&mut self, name: &str) {
        self.authorities_changed |= self.domains.set_authority(name, None);
        self.authorities_changed |= self.domains.set_remote(name, None);
        let before = self.domains.trust_domain(name);
        let touched = self.domains.remove(name);
        self.domains_changed(touched, before);
    }

    /// TrustDomains that are not among `present` are gone.
    pub fn retain_domains(&mut self, present: &HashSet<&str>) {
        let gone: Vec<_> = self.domains.names().filter(|name| !present.contains(name.as_str())).cloned().collect();
        gone.iter().for_each(|name| self.remove_domain(name));
    }

    fn domains_changed(&mut self, names: Vec<String>, trust_domains: impl IntoIterator<Item = TrustDomain>) {
        let mut concerned: BTreeSet<_> = names.iter().flat_map(|name| self.identities.of_domain(name)).collect();
        for trust_domain in trust_domains {
            concerned.extend(self.identities.of_foreign(&trust_domain).cloned());
        }
        // Which object holds a trust domain may have changed.
        self.authorities_changed |= !names.is_empty();
        self.dirty.domains.extend(names);
        self.judge(concerned.into_iter().collect());
        self.publish_endpoints();
    }

    /// A WorkloadIdentity came or changed.
    pub fn apply_identity(&mut self, declared: DeclaredIdentity) {
        let key = IdentityKey { namespace: declared.namespace.clone(), name: declared.name.clone() };
        self.dirty.identities.insert(key.clone());
        if !self.identities.insert(&key, declared) {
            return;
        }
        let affected = self.judge_only([key.clone()]);
        self.publish_all(affected, [key.namespace.as_str()]);
    }

    /// A WorkloadIdentity is gone.
    pub fn remove_identity(&mut self, key: &IdentityKey) {
        let mut affected: HashSet<Arc<str>> = self.matched_pods(key);
        let rivals = self.identities.remove(key);
        affected.extend(self.judge_only(rivals));
        self.publish_all(affected, [key.namespace.as_str()]);
    }

    /// WorkloadIdentities that are not among `present` are gone.
    pub fn retain_identities(&mut self, present: &HashSet<IdentityKey>) {
        let gone: Vec<_> = self.identities.keys().filter(|key| !present.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.remove_identity(key));
    }

    /// What would become of a WorkloadIdentity if it were stored now. It leaves nothing behind.
    pub fn preview_identity(&mut self, declared: DeclaredIdentity) -> Option<IdentityView> {
        let key = IdentityKey { namespace: declared.namespace.clone(), name: declared.name.clone() };
        let stored = self.identities.declared(&key).cloned();
        self.apply_identity(declared);
        let view = self.identity(&key);
        match stored {
            Some(stored) => self.apply_identity(stored),
            None => self.remove_identity(&key),
        }
        view
    }

    /// What the leader is to record of the ages of an identity's claims at `now`; `None`: still nothing.
    pub fn record_claims(&mut self, key: &IdentityKey, now: Timestamp) -> Option<BTreeMap<ClaimKey, Timestamp>> {
        let around = Surroundings { domains: &self.domains, namespaces: &self.namespaces };
        self.identities.record_claims(key, &around, now)
    }
}
