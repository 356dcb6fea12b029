//! Bundles in the forms of the Workload API: certificates one after the other, and JWK sets (SPIFFE Workload API, sections 5.1
//! and 6.2.2).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::document::{BundleError, jwt_authorities, wit_authorities};
use super::{Bundle, DEFAULT_REFRESH_HINT, MAX_BUNDLE_LENGTH};
use crate::id::TrustDomain;
use crate::jws::read_object;
use crate::x509::{CaCertificate, CaCertificateError};

/// Why bytes are no certificates one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not certificates in ASN.1 DER, one after the other without padding")]
pub struct NotCertificates;

/// Takes certificates in ASN.1 DER apart that stand one after the other. Only their outer lengths are looked at.
///
/// # Errors
/// When the bytes are not a row of DER sequences.
pub fn split_certificates(der: &[u8]) -> Result<Vec<&[u8]>, NotCertificates> {
    let mut certificates = Vec::new();
    let mut rest = der;
    while !rest.is_empty() {
        let (certificate, after) = rest.split_at_checked(length(rest)?).ok_or(NotCertificates)?;
        certificates.push(certificate);
        rest = after;
    }
    Ok(certificates)
}

/// Of the sequence at the start, with its header (X.690, section 8.1.3).
fn length(der: &[u8]) -> Result<usize, NotCertificates> {
    let [0x30, first, rest @ ..] = der else { return Err(NotCertificates) };
    let count = match first {
        0..=0x7f => return Ok(2 + usize::from(*first)),
        0x81..=0x83 => usize::from(first & 0x7f),
        _ => return Err(NotCertificates),
    };
    let digits = rest.get(..count).ok_or(NotCertificates)?;
    Ok(2 + count + digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)))
}

impl Bundle {
    /// The X.509 authorities of `trust_domain` from certificates one after the other. An authority whose kind of key is unknown
    /// here verifies nothing and is left out, as such keys of a bundle document are.
    ///
    /// # Errors
    /// When the bytes are not a row of certificates, or one of them is not an authority's.
    pub fn from_x509_der(trust_domain: &TrustDomain, der: &[u8]) -> Result<Self, BundleError> {
        if der.len() > MAX_BUNDLE_LENGTH {
            return Err(BundleError::TooLong { length: der.len() });
        }
        let mut bundle = Self::empty(trust_domain);
        let certificates = split_certificates(der).map_err(|_| BundleError::Malformed)?;
        for (position, der) in certificates.into_iter().enumerate() {
            match CaCertificate::from_der(der) {
                Ok(authority) => bundle.x509_authorities.push(authority),
                Err(CaCertificateError::Key) => {}
                Err(source) => return Err(BundleError::Certificate { position, source }),
            }
        }
        Ok(bundle)
    }

    /// The JWT authorities of `trust_domain` from a JWK set. Keys of another `use` than `jwt-svid` or of an unknown `kty` are ignored:
    /// nothing else of them is looked at. Keys without a `use` count, other than in a bundle document: the Workload API sends standard
    /// JWK sets of JWT authorities (section 6.2.2), and SPIRE leaves `use` out of them.
    ///
    /// # Errors
    /// When it is not a JWK set, or a key for JWT-SVIDs is not as it must be.
    pub fn from_jwk_set(trust_domain: &TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let mut bundle = Self::empty(trust_domain);
        bundle.jwt_authorities = jwt_authorities(keys(json)?)?;
        Ok(bundle)
    }

    /// The WIT authorities of `trust_domain` from a JWK set, as [`Self::from_jwk_set`].
    ///
    /// # Errors
    /// When it is not a JWK set, or a key for WIT-SVIDs is not as it must be.
    pub fn from_wit_jwk_set(trust_domain: &TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let mut bundle = Self::empty(trust_domain);
        bundle.wit_authorities = wit_authorities(keys(json)?)?;
        Ok(bundle)
    }

    /// A bundle that trusts nothing.
    fn empty(trust_domain: &TrustDomain) -> Self {
        Self {
            trust_domain: trust_domain.clone(),
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            wit_authorities: Vec::new(),
            sequence: 0,
            refresh_hint: DEFAULT_REFRESH_HINT,
        }
    }
}

/// The keys of a JWK set.
fn keys(json: &[u8]) -> Result<Vec<Map<String, Value>>, BundleError> {
    #[derive(Deserialize)]
    struct JwkSet {
        keys: Vec<Map<String, Value>>,
    }
    if json.len() > MAX_BUNDLE_LENGTH {
        return Err(BundleError::TooLong { length: json.len() });
    }
    read_object(json).map(|JwkSet { keys }| keys).ok_or(BundleError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_taken_apart_at_their_lengths() {
        let short = [0x30, 0x01, 0xff];
        let long = [&[0x30, 0x81, 0x80][..], &[7; 0x80]].concat();
        let row = [&short[..], &long, &short].concat();
        assert_eq!(split_certificates(&row).unwrap(), [&short[..], &long, &short]);
        assert!(split_certificates(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_cut_short_or_padded_is_refused() {
        for wrong in [
            &[0x30][..],
            &[0x30, 0x02, 1],
            &[0x30, 0x82, 0x01],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x00, 0x00],
            &[0x31, 0x00],
        ] {
            assert_eq!(split_certificates(wrong), Err(NotCertificates), "{wrong:x?}");
        }
    }
}
