//! The bundles by which proofs are verified.

use std::sync::Arc;

use countersign_core::bundle::BundleSet;

use crate::tls::FixedBundles;

/// Bundles as they are now. Implemented by `Source`, by [`FixedBundles`], and by closures that return bundles of every kind of
/// authority.
pub trait Bundles: Send + Sync {
    /// The JWT authorities by trust domain; `None`: no JWT-SVID can be verified now.
    fn jwt_bundles(&self) -> Option<Arc<BundleSet>>;

    /// The WIT authorities by trust domain; `None`: no WIT can be verified now.
    fn wit_bundles(&self) -> Option<Arc<BundleSet>>;
}

impl<F: Fn() -> Option<Arc<BundleSet>> + Send + Sync> Bundles for F {
    fn jwt_bundles(&self) -> Option<Arc<BundleSet>> {
        self()
    }

    fn wit_bundles(&self) -> Option<Arc<BundleSet>> {
        self()
    }
}

impl Bundles for FixedBundles {
    fn jwt_bundles(&self) -> Option<Arc<BundleSet>> {
        Some(Arc::clone(&self.0))
    }

    fn wit_bundles(&self) -> Option<Arc<BundleSet>> {
        Some(Arc::clone(&self.0))
    }
}
