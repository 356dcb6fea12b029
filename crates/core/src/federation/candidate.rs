//! A document that may become the bundle of a remote trust domain.

use super::limits::{Normalised, normalise};
use super::refusal::Refusal;
use crate::bundle::{Bundle, BundleDocument, BundleFormat};
use crate::id::TrustDomain;
use crate::x509::CaCertificate;

/// A bundle that was read: of the right trust domain, and normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) bundle: Bundle,
    /// As the document says; a bundle should have one (Trust Domain and Bundle, section 4.1.1).
    pub(super) sequence: Option<u64>,
    /// How many keys exceeded what is kept.
    pub(super) dropped: usize,
}

impl Candidate {
    /// Reads the bundle of `trust_domain`: at most 1 MiB, of which known keys are kept, at most 128 KiB.
    pub(super) fn read(format: BundleFormat, trust_domain: &TrustDomain, document: &[u8]) -> Result<Self, Refusal> {
        let read = BundleDocument::parse(format, trust_domain, document).map_err(|error| Refusal::from(&error))?;
        // A document does not say whose it is (SPIFFE Federation, section 5.1), but the certificate of an authority may.
        let names_other =
            |authority: &CaCertificate| authority.spiffe_id().is_some_and(|id| id.trust_domain() != trust_domain);
        if read.bundle.x509_authorities.iter().any(names_other) {
            return Err(Refusal::WrongTrustDomain);
        }
        let Normalised { bundle, dropped } = normalise(read.bundle);
        Ok(Self { bundle, sequence: read.sequence, dropped })
    }

    /// Whether it trusts the same as `bundle`, which is normalised too.
    pub(super) fn has_keys_of(&self, bundle: &Bundle) -> bool {
        self.bundle.has_keys_of(bundle)
    }
}
