//! A certificate chain and its key, as PEM files hold them. Errors never hold content.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

/// A certificate that can be served.
#[derive(Clone, Debug)]
pub struct ServableCertificate {
    /// The chain, leaf first, and its key.
    pub certified_key: Arc<CertifiedKey>,
    /// The DNS names of the leaf, in lower case; with wildcards.
    pub dns_names: Vec<String>,
    /// When the leaf ends.
    pub not_after: Timestamp,
}

/// Why two files are not a certificate and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFileError {
    /// No certificates in PEM.
    #[error("tls.crt is not one or more certificates in PEM")]
    Chain,
    /// No key in PEM.
    #[error("tls.key is not a private key in PEM")]
    Key,
    /// The key is of a kind that is not served, or not that of the leaf.
    #[error("tls.key is not the key of the leaf in tls.crt, or of an unknown kind")]
    Mismatch,
    /// The leaf cannot be read.
    #[error("the leaf in tls.crt is not an X.509 v3 certificate")]
    Leaf,
}

impl ServableCertificate {
    /// Reads both.
    ///
    /// # Errors
    /// See [`CertificateFileError`].
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, CertificateFileError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| CertificateFileError::Chain)?;
        let leaf = chain.first().ok_or(CertificateFileError::Chain)?;
        let (dns_names, not_after) = read_leaf(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateFileError::Key)?;
        let certified_key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|_| CertificateFileError::Mismatch)?;
        Ok(Self { certified_key: Arc::new(certified_key), dns_names, not_after })
    }
}

fn read_leaf(der: &[u8]) -> Result<(Vec<String>, Timestamp), CertificateFileError> {
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(der).map_err(|_| CertificateFileError::Leaf)?;
    let names = leaf.subject_alternative_name().map_err(|_| CertificateFileError::Leaf)?;
    let names = names.into_iter().flat_map(|extension| &extension.value.general_names);
    let dns_names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let not_after =
        Timestamp::from_second(leaf.validity().not_after.timestamp()).map_err(|_| CertificateFileError::Leaf)?;
    Ok((dns_names.collect(), not_after))
}
