//! The newest bundle of each trust domain that was in use in this process. No session goes back to an older one, whatever a
//! replica sends that lags behind or was restored (`docs/adr/0025-acknowledgements.md`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::id::TrustDomain;

/// What the sessions of an agent know of bundles. Sequences are kept as long as the process runs, also of bundles that were
/// withdrawn; there are as many as trust domains that the issuer ever sent.
///
/// A trust domain that is deleted and made anew has a higher sequence than before: sequences are at least the unix
/// milliseconds of the last change.
#[derive(Debug, Default)]
pub struct KnownBundles(Mutex<BTreeMap<TrustDomain, Known>>);

#[derive(Debug)]
struct Known {
    sequence: u64,
    /// Held by the sessions that use it.
    bundle: Weak<Bundle>,
    /// An older one came since, and the log says so.
    older_logged: bool,
}

impl KnownBundles {
    /// The bundle to use where the issuer sent `sent`: the one in use if that is newer. `None` if the newer one was withdrawn:
    /// an older one is not used in its place.
    ///
    /// A sequence names one content, so of two contents either could be the wrong one. The one that comes is used, since that
    /// of the issuer can be corrected, and a wrong one that is kept cannot.
    pub(super) fn newest(&self, sent: Bundle) -> Option<Arc<Bundle>> {
        let mut known = self.lock();
        let Some(known) = known.get_mut(&sent.trust_domain) else { return Some(Arc::new(sent)) };
        let in_use = known.bundle.upgrade();
        if sent.sequence < known.sequence {
            if !std::mem::replace(&mut known.older_logged, true) {
                log_older(&sent, known.sequence, in_use.is_some());
            }
            return in_use;
        }
        if let Some(in_use) = in_use.filter(|in_use| in_use.sequence == sent.sequence) {
            if *in_use == sent {
                return Some(in_use);
            }
            // The refresh hint is a setting, which changes without the keys.
            if !in_use.has_keys_of(&sent) {
                let (trust_domain, sequence) = (&sent.trust_domain, sent.sequence);
                tracing::warn!(%trust_domain, sequence, "the issuer sent other keys under the sequence of the bundle in use; they replace it");
            }
        }
        Some(Arc::new(sent))
    }

    /// The bundle of `trust_domain` that is in use.
    pub(super) fn in_use(&self, trust_domain: &TrustDomain) -> Option<Arc<Bundle>> {
        self.lock().get(trust_domain)?.bundle.upgrade()
    }

    /// These bundles are used from now on.
    pub(super) fn record(&self, trust: &BundleSet) {
        let mut all = self.lock();
        for bundle in trust.iter() {
            let newest = Known { sequence: bundle.sequence, bundle: Arc::downgrade(bundle), older_logged: false };
            match all.get_mut(&bundle.trust_domain) {
                // Another session may have got a newer one meanwhile.
                Some(known) if bundle.sequence < known.sequence => {}
                Some(known) if known.bundle.ptr_eq(&newest.bundle) => {}
                Some(known) => *known = newest,
                None => drop(all.insert(bundle.trust_domain.clone(), newest)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TrustDomain, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_older(sent: &Bundle, newest: u64, is_in_use: bool) {
    let (trust_domain, sequence) = (&sent.trust_domain, sent.sequence);
    if is_in_use {
        tracing::warn!(%trust_domain, sequence, newest, "the issuer sent an older bundle than the one in use, which stays");
    } else {
        tracing::warn!(%trust_domain, sequence, newest, "the issuer sent an older bundle than the one that was in use before; it is not used");
    }
}
