//! Bundles: the keys by which a trust domain's SVIDs are verified (SPIFFE Trust Domain and Bundle).

mod discovery;
mod document;
mod set;
mod wimse;
mod workload_api;

use std::time::Duration;

use jiff::Timestamp;

pub use discovery::{IssuerUrl, IssuerUrlError, MAX_ISSUER_LENGTH};
pub(crate) use document::{
    BundleDocument, BundleFormat, jwt_key_length, longest_json_without_keys, wit_key_length, x509_key_length,
};
pub use document::{BundleError, MAX_BUNDLE_LENGTH};
pub use set::{BundleSet, DuplicateBundle};
pub use wimse::{METADATA_PATH, METADATA_TYPE, MetadataError, TRUST_BUNDLE_PATH, TRUST_BUNDLE_TYPE};
pub use workload_api::{NotCertificates, split_certificates};

use crate::id::TrustDomain;
use crate::jwt::JwtVerificationKey;
use crate::wit::WitVerificationKey;
use crate::x509::CaCertificate;

/// The refresh hint of a bundle that names none.
pub const DEFAULT_REFRESH_HINT: Duration = Duration::from_secs(300);

/// What is needed to verify the SVIDs of one trust domain. Without keys it trusts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Whose bundle it is; known from outside, never from the document.
    pub trust_domain: TrustDomain,
    /// The authorities of X509-SVIDs.
    pub x509_authorities: Vec<CaCertificate>,
    /// The authorities of JWT-SVIDs; no two have the same key id.
    pub jwt_authorities: Vec<JwtVerificationKey>,
    /// The authorities of WIT-SVIDs; no two have the same key id, nor one that a JWT authority has.
    pub wit_authorities: Vec<WitVerificationKey>,
    /// Grows with every change of content.
    pub sequence: u64,
    /// How often those who use the bundle should look for a newer one.
    pub refresh_hint: Duration,
}

impl Bundle {
    /// Whether it trusts the same as `other`: the same keys of every kind in the same order.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        self.x509_authorities == other.x509_authorities
            && self.jwt_authorities == other.jwt_authorities
            && self.wit_authorities == other.wit_authorities
    }

    /// Whether it trusts nothing.
    pub fn is_without_keys(&self) -> bool {
        self.x509_authorities.is_empty() && self.jwt_authorities.is_empty() && self.wit_authorities.is_empty()
    }

    /// The certificates of all X.509 authorities, ASN.1 DER, one after the other: the form of the
    /// Workload API.
    pub fn x509_der_concatenated(&self) -> Vec<u8> {
        self.x509_authorities.iter().flat_map(CaCertificate::der).copied().collect()
    }

    /// The certificates of all X.509 authorities as PEM blocks.
    pub fn x509_pem(&self) -> String {
        self.x509_authorities.iter().map(CaCertificate::pem).collect()
    }
}

/// The sequence of a bundle that follows one of sequence `previous` by a change of content: max(previous + 1, unix milliseconds
/// of the change). So one that begins anew is higher than the one before too.
pub(crate) fn succeeding(previous: u64, change: Timestamp) -> u64 {
    previous.saturating_add(1).max(u64::try_from(change.as_millisecond()).unwrap_or(0))
}
