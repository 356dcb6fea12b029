//! The certificate of a signing authority.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::extensions::{self, Extensions};
use crate::id::{IdError, SpiffeId};
use crate::jws::PublicJwk;

/// The certificate of a signing authority, checked (X509-SVID, sections 3.2 and 4). Cheap to clone.
#[derive(Clone)]
pub struct CaCertificate(Arc<Inner>);

struct Inner {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    spki: Vec<u8>,
    jwk: PublicJwk,
    subject_key_id: Vec<u8>,
    id: Option<SpiffeId>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// Why a certificate is not one of a signing authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaCertificateError {
    /// Not one X.509 v3 certificate in DER.
    #[error("authority certificate is not one X.509 v3 certificate in strict DER of at most 64 KiB")]
    Malformed,
    /// `basicConstraints` does not say `cA`.
    #[error("authority certificate does not have cA set; this is not the certificate of an authority")]
    NotCa,
    /// `keyUsage` is missing or without `keyCertSign`.
    #[error("authority certificate's key usage lacks keyCertSign")]
    KeyUsage,
    /// More than one URI name.
    #[error("authority certificate has {count} URI SANs; at most one is allowed")]
    UriNames {
        /// How many there are.
        count: usize,
    },
    /// The URI name is not a SPIFFE ID.
    #[error("authority certificate's URI SAN: {0}")]
    Id(#[from] IdError),
    /// The SPIFFE ID of an authority has a path.
    #[error("authority certificate's SPIFFE ID {id} has a path; the id of an authority is that of its trust domain")]
    IdWithPath {
        /// The id.
        id: SpiffeId,
    },
    /// A kind of key that verifies nothing here.
    #[error("authority certificate's key is not RSA or ECDSA on P-256, P-384 or P-521")]
    Key,
}

impl CaCertificate {
    /// Reads the certificate of an authority, ASN.1 DER. Whether it is expired is not looked at.
    ///
    /// # Errors
    /// With the rule of X509-SVID sections 3.2, 4.1 and 4.3 that it breaks.
    pub fn from_der(der: &[u8]) -> Result<Self, CaCertificateError> {
        let certificate = extensions::parse(der).map_err(|_| CaCertificateError::Malformed)?;
        let read = Extensions::read(&certificate).map_err(|_| CaCertificateError::Malformed)?;
        if !read.ca {
            return Err(CaCertificateError::NotCa);
        }
        if !read.key_usage.as_ref().is_some_and(|usage| usage.key_cert_sign) {
            return Err(CaCertificateError::KeyUsage);
        }
        let id = authority_id(&read.uris)?;
        let jwk = PublicJwk::from_certificate(certificate.public_key()).ok_or(CaCertificateError::Key)?;
        let subject_key_id = match read.subject_key_id {
            Some(id) => id.to_vec(),
            // RFC 7093, section 2, method 1, as we make them ourselves.
            None => digest::digest(&digest::SHA256, &certificate.public_key().subject_public_key.data)
                .as_ref()
                .iter()
                .take(20)
                .copied()
                .collect(),
        };
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| CaCertificateError::Malformed);
        let der = CertificateDer::from(der.to_vec());
        let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_| CaCertificateError::Malformed)?.to_owned();
        let validity = certificate.validity();
        let (not_before, not_after) = (time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?);
        let spki = certificate.public_key().raw.to_vec();
        Ok(Self(Arc::new(Inner { der, anchor, spki, jwk, subject_key_id, id, not_before, not_after })))
    }

    /// ASN.1 DER.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// A PEM block `CERTIFICATE`.
    pub fn pem(&self) -> String {
        certificate_pem(&self.0.der)
    }

    /// The subject key identifier; where the certificate has none, one derived from its key.
    pub fn subject_key_id(&self) -> &[u8] {
        &self.0.subject_key_id
    }

    /// The id of the trust domain it belongs to, where it names one.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.0.id.as_ref()
    }

    /// When it begins to be valid.
    pub fn not_before(&self) -> Timestamp {
        self.0.not_before
    }

    /// When it ceases to be valid.
    pub fn not_after(&self) -> Timestamp {
        self.0.not_after
    }

    /// Whether it is valid at `now`: both ends included (RFC 5280, section 4.1.2.5).
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.0.not_before..=self.0.not_after).contains(&now)
    }

    pub(crate) fn jwk(&self) -> &PublicJwk {
        &self.0.jwk
    }

    pub(super) fn spki_der(&self) -> &[u8] {
        &self.0.spki
    }

    pub(super) fn anchor(&self) -> TrustAnchor<'static> {
        self.0.anchor.clone()
    }

    pub(super) fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }
}

impl PartialEq for CaCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for CaCertificate {}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaCertificate(")?;
        self.0.subject_key_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ", {} to {})", self.0.not_before, self.0.not_after)
    }
}

/// A PEM block `CERTIFICATE`, with line feeds, ending in one.
pub(crate) fn certificate_pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

/// The id of an authority's certificate: none, or one without path.
pub(super) fn authority_id(uris: &[&str]) -> Result<Option<SpiffeId>, CaCertificateError> {
    let uri = match uris {
        [] => return Ok(None),
        [uri] => uri,
        _ => return Err(CaCertificateError::UriNames { count: uris.len() }),
    };
    let id: SpiffeId = uri.parse()?;
    if id.path().is_empty() { Ok(Some(id)) } else { Err(CaCertificateError::IdWithPath { id }) }
}
