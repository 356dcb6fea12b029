//! Warnings about what depends on other objects: a WorkloadIdentity that gives no pod an identity yet, a TrustDomain that takes
//! identities away. Nothing is refused for it, since objects may be applied in any order.
//!
//! For this the webhook keeps the specifications of all WorkloadIdentities and TrustDomains and the labels of namespaces, by watches. It
//! makes no calls while it answers. Until it has seen everything, and where there is more than it keeps, it warns of nothing.

mod warnings;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use countersign_core::entitlement::{DeclaredDomain, Labels};
use countersign_crds::{TrustDomain, WorkloadIdentity};
use countersign_index::{IdentityKey, Index};
use parking_lot::Mutex;

use crate::validate::Resource;

pub use watch::watch;

/// The most bytes of specifications that are kept, as JSON: of some ten thousand WorkloadIdentities.
const MOST_KEPT: usize = 16 * 1024 * 1024;

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Consequences(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    index: Index,
    domains: HashMap<String, TrustDomain>,
    /// Bytes of each specification, and of all.
    lengths: HashMap<IdentityKey, usize>,
    total: usize,
    /// The value of `{cluster}`.
    cluster: String,
    /// Which kinds have been listed: namespaces, TrustDomains, WorkloadIdentities.
    listed: [bool; 3],
}

impl Consequences {
    /// Warnings about an object that is being stored.
    #[must_use]
    pub fn of(&self, resource: &Resource) -> Vec<String> {
        match resource {
            Resource::TrustDomain(object) => self.of_domain(object),
            Resource::WorkloadIdentity(object) => self.of_identity(object),
        }
    }

    fn of_identity(&self, object: &WorkloadIdentity) -> Vec<String> {
        let mut known = self.0.lock();
        if !known.is_complete() {
            return Vec::new();
        }
        let view = known.index.preview_identity(countersign_policy::workload_identity(object));
        view.map(|view| warnings::of_identity(&view)).unwrap_or_default()
    }

    fn of_domain(&self, object: &TrustDomain) -> Vec<String> {
        let mut known = self.0.lock();
        if !known.is_complete() {
            return Vec::new();
        }
        let name = object.metadata.name.clone().unwrap_or_default();
        let before = known.index.admitted_by(&name);
        let declared = known.declared(object);
        known.index.apply_domain(declared);
        let (verdict, after) = (known.index.domain(&name), known.index.admitted_by(&name));
        match known.domains.get(&name).map(|stored| known.declared(stored)) {
            Some(stored) => known.index.apply_domain(stored),
            None => known.index.remove_domain(&name),
        }
        let lost: Vec<&IdentityKey> = before.difference(&after).collect();
        warnings::of_domain(verdict.as_ref(), &lost)
    }
}

impl Known {
    fn is_complete(&self) -> bool {
        self.listed == [true; 3] && self.total <= MOST_KEPT
    }

    fn declared(&self, object: &TrustDomain) -> DeclaredDomain {
        countersign_policy::trust_domain(object, &self.cluster)
    }

    fn apply_namespace(&mut self, name: &str, labels: Labels) {
        self.index.apply_namespace(name, labels);
    }

    fn apply_domain(&mut self, object: TrustDomain) {
        let declared = self.declared(&object);
        self.index.apply_domain(declared);
        self.domains.insert(object.metadata.name.clone().unwrap_or_default(), object);
    }

    fn remove_domain(&mut self, name: &str) {
        self.index.remove_domain(name);
        self.domains.remove(name);
    }

    /// A specification that does not fit is counted and not kept, so that there are no warnings while it is stored.
    fn apply_identity(&mut self, object: &WorkloadIdentity) {
        let key = key_of(object);
        let length = serde_json::to_vec(&object.spec).map_or(MOST_KEPT, |spec| spec.len());
        let before = self.lengths.insert(key.clone(), length).unwrap_or_default();
        self.total = self.total - before + length;
        if self.total > MOST_KEPT {
            self.index.remove_identity(&key);
        } else {
            self.index.apply_identity(countersign_policy::workload_identity(object));
        }
    }

    fn remove_identity(&mut self, key: &IdentityKey) {
        self.total -= self.lengths.remove(key).unwrap_or_default();
        self.index.remove_identity(key);
    }

    fn retain_identities(&mut self, present: &HashSet<IdentityKey>) {
        let gone: Vec<_> = self.lengths.keys().filter(|key| !present.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.remove_identity(key));
    }
}

fn key_of(object: &WorkloadIdentity) -> IdentityKey {
    IdentityKey {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
