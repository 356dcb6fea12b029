//! What the rules of X509-SVID ask of a certificate's extensions, read once.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::MAX_CERTIFICATE_LENGTH;

/// Parses exactly one X.509 v3 certificate in DER.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Malformed> {
    if der.len() > MAX_CERTIFICATE_LENGTH {
        return Err(Malformed);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if certificate.version() == X509Version::V3 => Ok(certificate),
        _ => Err(Malformed),
    }
}

/// The extensions that decide what a certificate is.
#[derive(Default)]
pub(super) struct Extensions<'a> {
    pub(super) ca: bool,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) extended_key_usage: Option<ExtendedKeyUsage>,
    /// The URI names among the subject alternative names.
    pub(super) uris: Vec<&'a str>,
    pub(super) san_critical: bool,
    pub(super) subject_key_id: Option<&'a [u8]>,
}

pub(super) struct KeyUsage {
    pub(super) critical: bool,
    pub(super) digital_signature: bool,
    pub(super) key_cert_sign: bool,
    pub(super) crl_sign: bool,
}

pub(super) struct ExtendedKeyUsage {
    pub(super) server_auth: bool,
    pub(super) client_auth: bool,
}

/// Not a certificate, or an extension is there twice or cannot be read.
#[derive(Debug)]
pub(super) struct Malformed;

impl<'a> Extensions<'a> {
    pub(super) fn read(certificate: &'a X509Certificate<'_>) -> Result<Self, Malformed> {
        // Refuses an extension that is there twice, which the rest then need not mind.
        certificate.extensions_map().map_err(|_| Malformed)?;
        let mut read = Self::default();
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => read.ca = constraints.ca,
                ParsedExtension::KeyUsage(usage) => {
                    read.key_usage = Some(KeyUsage {
                        critical: extension.critical,
                        digital_signature: usage.digital_signature(),
                        key_cert_sign: usage.key_cert_sign(),
                        crl_sign: usage.crl_sign(),
                    });
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    read.extended_key_usage =
                        Some(ExtendedKeyUsage { server_auth: usage.server_auth, client_auth: usage.client_auth });
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    read.san_critical = extension.critical;
                    for name in &names.general_names {
                        match name {
                            GeneralName::URI(uri) => read.uris.push(uri),
                            GeneralName::Invalid(..) => return Err(Malformed),
                            _ => {}
                        }
                    }
                }
                ParsedExtension::SubjectKeyIdentifier(id) => read.subject_key_id = Some(id.0),
                ParsedExtension::ParseError { .. } => return Err(Malformed),
                _ => {}
            }
        }
        Ok(read)
    }
}
