//! What the authorities publish, and the issuer reads: what signs now, and what is trusted now.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use countersign_core::{id::TrustDomain, jwt::JwtAuthority, wit::WitAuthority, x509::X509Authority};
use jiff::Timestamp;

/// Everything that signs and is trusted at a moment, ready to use. What signs and what is trusted are different maps: a trust
/// domain of another cluster has a bundle here, and nothing that signs.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// What signs, by trust domain.
    pub signers: HashMap<TrustDomain, Arc<DomainSigners>>,
    /// What is trusted, by trust domain.
    pub bundles: HashMap<TrustDomain, Arc<PublishedBundle>>,
    /// What signs serving certificates.
    pub control_plane: Option<Arc<X509Authority>>,
    /// The control plane's current and next roots, ASN.1 DER.
    pub control_plane_roots: Vec<Vec<u8>>,
}

/// What signs for a trust domain at a moment.
#[derive(Clone, Debug)]
pub struct DomainSigners {
    /// What signs X509-SVIDs.
    pub x509: Option<Arc<X509Authority>>,
    /// What signs JWT-SVIDs, and when it leaves the bundle: nothing it signs may live longer.
    pub jwt: Option<(Arc<JwtAuthority>, Timestamp)>,
    /// As `jwt`, of WIT-SVIDs, where the trust domain has them.
    pub wit: Option<(Arc<WitAuthority>, Timestamp)>,
    /// The `iss` of its JWT-SVIDs.
    pub jwt_issuer: Option<String>,
    /// Subject key ids of X.509 authorities whose leaves must be renewed at once.
    pub tainted: Vec<Vec<u8>>,
    /// Key ids of authorities of tokens, JWT and WIT, whose tokens must be renewed at once.
    pub tainted_key_ids: Vec<String>,
}

/// A trust domain's bundle at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedBundle {
    /// The bundle document, JSON.
    pub document: Bytes,
    /// Its sequence.
    pub sequence: u64,
}

impl Published {
    /// Whether both say the same to sessions.
    pub fn same(&self, other: &Self) -> bool {
        let control_plane = |published: &Self| {
            published.control_plane.as_ref().map(|authority| authority.certificate().subject_key_id().to_vec())
        };
        self.control_plane_roots == other.control_plane_roots
            && control_plane(self) == control_plane(other)
            && self.bundles == other.bundles
            && self.signers.len() == other.signers.len()
            && self
                .signers
                .iter()
                .all(|(name, signers)| other.signers.get(name).is_some_and(|other| signers.same(other)))
    }
}

impl DomainSigners {
    fn same(&self, other: &Self) -> bool {
        let ids = |signers: &Self| {
            let x509 = signers.x509.as_ref().map(|authority| authority.certificate().subject_key_id().to_vec());
            let jwt = signers.jwt.as_ref().map(|(authority, end)| (authority.kid().to_owned(), *end));
            (x509, jwt, signers.wit.as_ref().map(|(authority, end)| (authority.kid().to_owned(), *end)))
        };
        let tainted = |signers: &Self| (signers.tainted.clone(), signers.tainted_key_ids.clone());
        tainted(self) == tainted(other) && self.jwt_issuer == other.jwt_issuer && ids(self) == ids(other)
    }
}
