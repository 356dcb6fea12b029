//! The seam between an authority and the key it signs with.

use std::fmt;
use std::sync::Arc;

use super::{KeyError, SubjectPublicKeyInfo};

/// Something that signs with one private key, wherever that is kept.
pub trait Signer: fmt::Debug + Send + Sync {
    /// How it signs; fixed by its key.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// The public half of its key.
    fn public_key(&self) -> &SubjectPublicKeyInfo;

    /// The signature of `message` (which the signer hashes itself): for ECDSA the DER of
    /// `Ecdsa-Sig-Value` (RFC 3279, section 2.2.3), for RSA the octets of RSASSA-PKCS1-v1_5.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}

impl<S: Signer + ?Sized> Signer for Arc<S> {
    fn algorithm(&self) -> SignatureAlgorithm {
        (**self).algorithm()
    }

    fn public_key(&self) -> &SubjectPublicKeyInfo {
        (**self).public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        (**self).sign(message)
    }
}

/// How a [`Signer`] signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// ECDSA on P-256 with SHA-256; `ES256` in JOSE.
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384; `ES384` in JOSE.
    EcdsaP384Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-256; `RS256` in JOSE.
    RsaPkcs1Sha256,
}

impl SignatureAlgorithm {
    /// The value of `alg` in a JWS header (RFC 7518, section 3.1).
    pub fn jose_name(self) -> &'static str {
        match self {
            Self::EcdsaP256Sha256 => "ES256",
            Self::EcdsaP384Sha384 => "ES384",
            Self::RsaPkcs1Sha256 => "RS256",
        }
    }
}
