//! What a certificate says of itself, for people who ask what they have. Nothing of it is verified.

use std::fmt::Write as _;

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::MAX_CERTIFICATE_LENGTH;
use crate::key::{KeyError, SubjectPublicKeyInfo};

/// What a certificate says of itself. Whoever made it chose every value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateClaims {
    /// The subject's distinguished name; often empty.
    pub subject: String,
    /// The distinguished name of the issuer.
    pub issuer: String,
    /// Hexadecimal.
    pub serial: String,
    /// The URI names among the subject alternative names.
    pub uris: Vec<String>,
    /// The DNS names among them.
    pub dns_names: Vec<String>,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ceases to be valid.
    pub not_after: Timestamp,
    /// The kind of its key, such as `ECDSA P-256`.
    pub key: String,
    /// Whether it has cA set.
    pub is_ca: bool,
    /// Its subject key identifier, hexadecimal.
    pub subject_key_id: Option<String>,
    /// The key identifier of the authority that signed it, hexadecimal.
    pub authority_key_id: Option<String>,
}

/// Why bytes are not a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACertificate {
    /// Longer than [`MAX_CERTIFICATE_LENGTH`].
    #[error("it has {0} bytes, more than the {MAX_CERTIFICATE_LENGTH} that a certificate may have here")]
    TooLong(usize),
    /// The structure of a certificate does not hold.
    #[error("it is not an X.509 certificate in DER: the structure of one ends too early or has other fields")]
    Structure,
    /// Something comes after the certificate.
    #[error("{0} bytes follow the certificate")]
    Trailing(usize),
    /// A time that is none.
    #[error("its validity is not a pair of times")]
    Validity,
}

impl CertificateClaims {
    /// Reads a certificate, ASN.1 DER.
    ///
    /// # Errors
    /// When it is not exactly one certificate. Which rules of X509-SVID it breaks, [`leaf_faults`](super::leaf_faults) says.
    pub fn from_der(der: &[u8]) -> Result<Self, NotACertificate> {
        if der.len() > MAX_CERTIFICATE_LENGTH {
            return Err(NotACertificate::TooLong(der.len()));
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotACertificate::Structure)?;
        if !rest.is_empty() {
            return Err(NotACertificate::Trailing(rest.len()));
        }
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| NotACertificate::Validity);
        let validity = certificate.validity();
        let mut claims = Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: hex(certificate.raw_serial()),
            uris: Vec::new(),
            dns_names: Vec::new(),
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
            key: key(&certificate),
            is_ca: false,
            subject_key_id: None,
            authority_key_id: None,
        };
        for extension in certificate.extensions() {
            claims.add(extension.parsed_extension());
        }
        Ok(claims)
    }

    fn add(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::BasicConstraints(constraints) => self.is_ca = constraints.ca,
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(hex(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| hex(id.0));
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
                        GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

fn key(certificate: &X509Certificate<'_>) -> String {
    match SubjectPublicKeyInfo::from_der(certificate.public_key().raw) {
        Ok(key) => key.kind().to_string(),
        Err(KeyError::Unsupported { found }) => found,
        Err(_) => "unreadable".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
