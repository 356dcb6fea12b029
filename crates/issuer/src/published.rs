//! What the authorities publish, and the issuer reads: what signs now, and what is trusted now.

use std::{collections::HashMap, sync::Arc};

use countersign_core::{id::TrustDomain, jwt::JwtAuthority, x509::X509Authority};
use jiff::Timestamp;

/// Everything that signs and is trusted at a moment, ready to use.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// By trust domain.
    pub domains: HashMap<TrustDomain, Arc<DomainAuthority>>,
    /// What signs serving certificates.
    pub control_plane: Option<Arc<X509Authority>>,
    /// The control plane's current and next roots, ASN.1 DER.
    pub control_plane_roots: Vec<Vec<u8>>,
}

/// A trust domain's authorities at a moment.
#[derive(Clone, Debug)]
pub struct DomainAuthority {
    /// What signs X509-SVIDs.
    pub x509: Option<Arc<X509Authority>>,
    /// What signs JWT-SVIDs, and when it leaves the bundle: nothing it signs may live longer.
    pub jwt: Option<(Arc<JwtAuthority>, Timestamp)>,
    /// The `iss` of its JWT-SVIDs.
    pub jwt_issuer: Option<String>,
    /// The bundle document, JSON.
    pub bundle: Arc<[u8]>,
    /// The bundle's sequence.
    pub sequence: u64,
    /// Subject key ids of X.509 authorities whose leaves must be renewed at once.
    pub tainted: Vec<Vec<u8>>,
}

impl Published {
    /// Whether both say the same to sessions.
    pub fn same(&self, other: &Self) -> bool {
        let control_plane = |published: &Self| {
            published.control_plane.as_ref().map(|authority| authority.certificate().subject_key_id().to_vec())
        };
        self.control_plane_roots == other.control_plane_roots
            && control_plane(self) == control_plane(other)
            && self.domains.len() == other.domains.len()
            && self.domains.iter().all(|(name, domain)| other.domains.get(name).is_some_and(|other| domain.same(other)))
    }
}

impl DomainAuthority {
    fn same(&self, other: &Self) -> bool {
        let signers = |domain: &Self| {
            let x509 = domain.x509.as_ref().map(|authority| authority.certificate().subject_key_id().to_vec());
            (x509, domain.jwt.as_ref().map(|(authority, end)| (authority.kid().to_owned(), *end)))
        };
        self.bundle == other.bundle
            && self.tainted == other.tainted
            && self.jwt_issuer == other.jwt_issuer
            && signers(self) == signers(other)
    }
}
