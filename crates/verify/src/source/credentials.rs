//! X509-SVIDs with their keys, each verified before anyone can use it.

use std::{fmt, sync::Arc};

use countersign_core::{
    bundle::BundleSet,
    id::SpiffeId,
    x509::{X509SvidError, verify_x509_svid},
};
use jiff::Timestamp;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::SourceError;

/// The SVIDs of a workload, and the bundles that came with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Credentials {
    svids: Vec<Arc<X509Svid>>,
    bundles: Arc<BundleSet>,
}

/// An X509-SVID with its key.
#[derive(Clone)]
pub struct X509Svid {
    id: SpiffeId,
    hint: String,
    certified_key: Arc<CertifiedKey>,
}

/// Why an SVID from the Workload API is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SvidError {
    #[error("the X509-SVID of {id} does not verify by the bundle that came with it: {source}")]
    Svid { id: SpiffeId, source: X509SvidError },
    #[error("the X509-SVID for {id} is that of {found}")]
    OtherId { id: SpiffeId, found: SpiffeId },
    #[error("the key for {id} is of an unknown kind, or not that of the certificate")]
    Key { id: SpiffeId },
}

impl SvidError {
    /// Whether the reason is the time: what is refused now may verify in a moment, with the same response.
    pub(super) const fn is_of_time(&self) -> bool {
        let Self::Svid { source, .. } = self else { return false };
        matches!(source, X509SvidError::NotYetValid | X509SvidError::NoAuthority(_) | X509SvidError::Expired)
    }
}

impl X509Credentials {
    /// `svids` in their order, of which there is at least one.
    pub(super) fn new(svids: Vec<X509Svid>, bundles: BundleSet) -> Self {
        Self { svids: svids.into_iter().map(Arc::new).collect(), bundles: Arc::new(bundles) }
    }

    /// All SVIDs; the first is the default.
    #[must_use]
    pub fn svids(&self) -> &[Arc<X509Svid>] {
        &self.svids
    }

    /// The X.509 authorities by trust domain: the workload's own, and those that it federates with.
    #[must_use]
    pub fn bundles(&self) -> &Arc<BundleSet> {
        &self.bundles
    }

    pub(super) fn svid(&self, hint: Option<&str>) -> Result<Arc<X509Svid>, SourceError> {
        let Some(hint) = hint else {
            return self.svids.first().cloned().ok_or(SourceError::Waiting { last: None });
        };
        // If two SVIDs have the same hint, the first is used (SPIFFE Workload API, section 5.2.1).
        let found = self.svids.iter().find(|svid| svid.hint == hint).cloned();
        found.ok_or_else(|| SourceError::NoSuchHint { hint: hint.to_owned() })
    }
}

impl X509Svid {
    /// `chain` is leaf first; `key` is PKCS#8, both ASN.1 DER. The key's bytes are wiped.
    pub(super) fn verified(
        id: SpiffeId,
        hint: String,
        chain: &[&[u8]],
        key: &Zeroizing<Vec<u8>>,
        bundles: &BundleSet,
        now: Timestamp,
    ) -> Result<Self, SvidError> {
        match verify_x509_svid(chain, bundles, now) {
            Ok(found) if found == id => {}
            Ok(found) => return Err(SvidError::OtherId { id, found }),
            Err(source) => return Err(SvidError::Svid { id, source }),
        }
        let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.as_slice()));
        let Ok(key) = any_supported_type(&key) else { return Err(SvidError::Key { id }) };
        let certified_key = CertifiedKey::new(chain, key);
        match certified_key.keys_match() {
            Ok(()) => Ok(Self { id, hint, certified_key: Arc::new(certified_key) }),
            Err(_) => Err(SvidError::Key { id }),
        }
    }

    /// Its SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// What its owner says it is for; may be empty.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The chain, leaf first, without the root, and the key as a signer of rustls.
    #[must_use]
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified_key
    }
}

impl PartialEq for X509Svid {
    /// The key is that of the leaf.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.hint == other.hint && self.certified_key.cert == other.certified_key.cert
    }
}

impl Eq for X509Svid {}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X509Svid({}, {:?})", self.id, self.hint)
    }
}
