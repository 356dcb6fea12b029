//! The bundles a verifier trusts, by trust domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Bundle;
use crate::id::TrustDomain;

/// Bundles by trust domain; never merged, and a trust domain is there once. Cheap to clone in its
/// content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleSet(BTreeMap<TrustDomain, Arc<Bundle>>);

/// A second bundle for a trust domain that has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trust domain {0} has two bundles; bundles are not merged, remove one")]
pub struct DuplicateBundle(pub TrustDomain);

impl BundleSet {
    /// A set of `bundles`.
    ///
    /// # Errors
    /// [`DuplicateBundle`] when two are of one trust domain.
    pub fn new(bundles: impl IntoIterator<Item = Bundle>) -> Result<Self, DuplicateBundle> {
        let mut set = Self::default();
        bundles.into_iter().try_for_each(|bundle| set.insert(bundle))?;
        Ok(set)
    }

    /// Adds a bundle.
    ///
    /// # Errors
    /// [`DuplicateBundle`] when the trust domain has one; the set is unchanged.
    pub fn insert(&mut self, bundle: impl Into<Arc<Bundle>>) -> Result<(), DuplicateBundle> {
        let bundle = bundle.into();
        if self.0.contains_key(&bundle.trust_domain) {
            return Err(DuplicateBundle(bundle.trust_domain.clone()));
        }
        self.0.insert(bundle.trust_domain.clone(), bundle);
        Ok(())
    }

    /// The bundle of a trust domain.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Arc<Bundle>> {
        self.0.get(trust_domain)
    }

    /// All bundles, by trust domain in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
