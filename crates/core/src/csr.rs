//! Certificate signing requests (PKCS#10, RFC 2986): a public key, and the proof that the sender
//! holds its private half.
//!
//! Nothing else of a request is ever readable here, so that no subject, SAN or extension in it can
//! reach a certificate.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rcgen::CertificateParams;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, Oid,
};
use x509_parser::prelude::FromDer;

use crate::key::{KeyError, KeyKind, PrivateKey, SubjectPublicKeyInfo};
use crate::x509::RcgenSigner;

/// The longest request that is looked at, in bytes.
pub const MAX_CSR_LENGTH: usize = 8 * 1024;

/// A request whose proof was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    public_key: SubjectPublicKeyInfo,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`MAX_CSR_LENGTH`].
    #[error("CSR of {length} bytes is longer than {MAX_CSR_LENGTH}")]
    TooLong {
        /// Of the request, in bytes.
        length: usize,
    },
    /// Not one PKCS#10 request in DER.
    #[error("CSR is not a PKCS#10 request in DER (RFC 2986), or bytes follow it")]
    Malformed,
    /// Its public key is not acceptable.
    #[error("CSR's public key: {0}")]
    Key(#[from] KeyError),
    /// Signed by an algorithm that is not accepted for its key.
    #[error("CSR is signed by algorithm {oid}, not accepted for its key; use ECDSA or RSA PKCS#1 with SHA-256")]
    SignatureAlgorithm {
        /// Dotted.
        oid: String,
    },
    /// The sender did not prove that it holds the private key.
    #[error("CSR's signature is not by the key it carries; sign it with the private half of that key")]
    Signature,
    /// A request could not be made.
    #[error("making a CSR failed: {reason}")]
    Create {
        /// Without any secret.
        reason: String,
    },
}

impl Csr {
    /// A request for `key`, with an empty subject and no extension, in DER.
    ///
    /// # Errors
    /// [`CsrError::Create`].
    pub fn create(key: &PrivateKey) -> Result<Vec<u8>, CsrError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params
            .serialize_request(&RcgenSigner::new(key.clone()))
            .map_err(|error| CsrError::Create { reason: error.to_string() })?;
        Ok(request.der().to_vec())
    }

    /// Reads a request in DER and verifies that it is signed by the key it carries.
    ///
    /// # Errors
    /// When it is too long, not PKCS#10, of a key or signature algorithm that is not accepted, or
    /// without proof.
    pub fn verify(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_LENGTH {
            return Err(CsrError::TooLong { length: der.len() });
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() || request.signature_value.unused_bits != 0 {
            return Err(CsrError::Malformed);
        }
        let info = &request.certification_request_info;
        let public_key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)?;
        let oid = &request.signature_algorithm.algorithm;
        let algorithm = verification_algorithm(public_key.kind(), oid)
            .ok_or_else(|| CsrError::SignatureAlgorithm { oid: oid.to_id_string() })?;
        UnparsedPublicKey::new(algorithm, public_key.key_bits())
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| CsrError::Signature)?;
        Ok(Self { public_key })
    }

    /// The key that the sender proved to hold.
    pub fn public_key_spki(&self) -> &SubjectPublicKeyInfo {
        &self.public_key
    }

    /// The kind of that key.
    pub fn key_type(&self) -> KeyKind {
        self.public_key.kind()
    }
}

fn verification_algorithm(kind: KeyKind, oid: &Oid<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let (sha256, sha384) = (*oid == OID_SIG_ECDSA_WITH_SHA256, *oid == OID_SIG_ECDSA_WITH_SHA384);
    Some(match kind {
        KeyKind::EcP256 if sha256 => &ECDSA_P256_SHA256_ASN1,
        KeyKind::EcP256 if sha384 => &ECDSA_P256_SHA384_ASN1,
        KeyKind::EcP384 if sha256 => &ECDSA_P384_SHA256_ASN1,
        KeyKind::EcP384 if sha384 => &ECDSA_P384_SHA384_ASN1,
        KeyKind::Rsa { .. } if *oid == OID_PKCS1_SHA256WITHRSA => &RSA_PKCS1_2048_8192_SHA256,
        KeyKind::Rsa { .. } if *oid == OID_PKCS1_SHA384WITHRSA => &RSA_PKCS1_2048_8192_SHA384,
        KeyKind::Rsa { .. } if *oid == OID_PKCS1_SHA512WITHRSA => &RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}
