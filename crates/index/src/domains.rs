//! The TrustDomains there are. Of two objects that name the same trust domain the oldest is its authority here; the other
//! is a duplicate and signs nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use countersign_core::{
    entitlement::{DomainKind, DomainSpec, FieldErrors},
    federation::RemoteSpec,
    id::TrustDomain,
    journal::AuthorityConfig,
};
use jiff::Timestamp;

/// What became of a TrustDomain object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainVerdict {
    /// It is used.
    Accepted(Arc<DomainSpec>),
    /// Fields cannot be used.
    Invalid(FieldErrors),
    /// An older object names the same trust domain.
    Duplicate {
        /// That object's name.
        of: String,
        /// The trust domain of both.
        trust_domain: TrustDomain,
    },
}

/// The remote trust domains of this cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remotes {
    /// The trust domains of which this cluster is the authority.
    pub own: BTreeSet<TrustDomain>,
    /// By the names of their TrustDomains.
    pub by_name: BTreeMap<String, Remote>,
}

/// A remote TrustDomain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The object's uid.
    pub uid: String,
    /// Where its bundle comes from.
    pub spec: RemoteSpec,
}

#[derive(Debug, Default)]
pub(super) struct Domains {
    by_name: HashMap<String, Result<Arc<DomainSpec>, FieldErrors>>,
    authorities: HashMap<String, AuthorityConfig>,
    remotes: HashMap<String, RemoteSpec>,
    /// Objects by the trust domain they name, in order of precedence: created, uid, name.
    by_trust_domain: HashMap<TrustDomain, BTreeSet<(Timestamp, String, String)>>,
}

impl Domains {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    /// Keeps what an object specifies of its authorities; the answer is whether that is new.
    pub(super) fn set_authority(&mut self, name: &str, authority: Option<AuthorityConfig>) -> bool {
        let old = match authority.clone() {
            Some(authority) => self.authorities.insert(name.to_owned(), authority),
            None => self.authorities.remove(name),
        };
        old != authority
    }

    /// The authorities of the accepted TrustDomains, by the objects' names.
    pub(super) fn accepted_authorities(&self) -> BTreeMap<String, AuthorityConfig> {
        let accepted = self.authorities.iter().filter(|(name, _)| self.accepted(name).is_some());
        accepted.map(|(name, authority)| (name.clone(), authority.clone())).collect()
    }

    /// Keeps where the bundle of a remote trust domain comes from; the answer is whether that is new.
    pub(super) fn set_remote(&mut self, name: &str, remote: Option<RemoteSpec>) -> bool {
        let old = match remote.clone() {
            Some(remote) => self.remotes.insert(name.to_owned(), remote),
            None => self.remotes.remove(name),
        };
        old != remote
    }

    /// Where the bundles of the accepted remote TrustDomains come from.
    pub(super) fn accepted_remotes(&self) -> Remotes {
        let accepted = |name: &String| Some(self.accepted(name)?.uid.clone());
        let remotes = self
            .remotes
            .iter()
            .filter_map(|(name, spec)| Some((name.clone(), Remote { uid: accepted(name)?, spec: spec.clone() })));
        let local = self.by_name.keys().filter_map(|name| self.accepted(name));
        let own = local.filter(|spec| spec.kind == DomainKind::Local).map(|spec| spec.trust_domain.clone());
        Remotes { own: own.collect(), by_name: remotes.collect() }
    }

    /// The trust domain that an object names.
    pub(super) fn trust_domain(&self, name: &str) -> Option<TrustDomain> {
        Some(self.by_name.get(name)?.as_ref().ok()?.trust_domain.clone())
    }

    /// The object that holds a trust domain.
    pub(super) fn holder(&self, trust_domain: &TrustDomain) -> Option<Arc<DomainSpec>> {
        let (_, _, name) = self.by_trust_domain.get(trust_domain)?.first()?;
        self.by_name.get(name)?.as_ref().ok().cloned()
    }

    pub(super) fn stored(&self, name: &str) -> Option<&Result<Arc<DomainSpec>, FieldErrors>> {
        self.by_name.get(name)
    }

    /// Puts a TrustDomain in place; the answer names every object whose verdict may have changed.
    pub(super) fn insert(&mut self, name: &str, spec: Result<DomainSpec, FieldErrors>) -> Vec<String> {
        let mut touched = self.remove(name);
        if let Ok(spec) = &spec {
            let rivals = self.by_trust_domain.entry(spec.trust_domain.clone()).or_default();
            rivals.insert((spec.created, spec.uid.clone(), name.to_owned()));
            touched.extend(rivals.iter().map(|(_, _, name)| name.clone()));
        }
        self.by_name.insert(name.to_owned(), spec.map(Arc::new));
        touched.push(name.to_owned());
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Takes a TrustDomain out; the answer names every object whose verdict may have changed.
    pub(super) fn remove(&mut self, name: &str) -> Vec<String> {
        let Some(removed) = self.by_name.remove(name) else { return Vec::new() };
        let mut touched = vec![name.to_owned()];
        let Ok(spec) = removed else { return touched };
        if let Some(rivals) = self.by_trust_domain.get_mut(&spec.trust_domain) {
            rivals.remove(&(spec.created, spec.uid.clone(), name.to_owned()));
            touched.extend(rivals.iter().map(|(_, _, name)| name.clone()));
            if rivals.is_empty() {
                self.by_trust_domain.remove(&spec.trust_domain);
            }
        }
        touched
    }

    pub(super) fn verdict(&self, name: &str) -> Option<DomainVerdict> {
        let spec = match self.by_name.get(name)? {
            Ok(spec) => spec,
            Err(error) => return Some(DomainVerdict::Invalid(error.clone())),
        };
        let holder = self.by_trust_domain.get(&spec.trust_domain)?.first()?;
        Some(if holder.2 == name {
            DomainVerdict::Accepted(spec.clone())
        } else {
            DomainVerdict::Duplicate { of: holder.2.clone(), trust_domain: spec.trust_domain.clone() }
        })
    }

    pub(super) fn accepted(&self, name: &str) -> Option<Arc<DomainSpec>> {
        match self.verdict(name)? {
            DomainVerdict::Accepted(spec) => Some(spec),
            DomainVerdict::Invalid(_) | DomainVerdict::Duplicate { .. } => None,
        }
    }
}
