//! Keys: what kinds there are, how they are made and kept, and the seam behind which they sign.
//!
//! A [`PrivateKey`] is wiped from memory when it goes and never shows in `Debug`. Authorities sign
//! through [`Signer`]; a [`KeyRef`] says where the key is kept.

mod private;
mod public;
mod reference;
mod signer;

use serde::{Deserialize, Serialize};

pub use private::PrivateKey;
pub use public::{KeyKind, SubjectPublicKeyInfo};
pub use reference::KeyRef;
pub use signer::{SignatureAlgorithm, Signer};

/// The kind of key to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    #[serde(rename = "ec-p256")]
    EcP256,
    /// ECDSA on P-384.
    #[serde(rename = "ec-p384")]
    EcP384,
    /// RSA with a modulus of 2048 bits.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

impl KeyType {
    /// As it is written in resources: `ec-p256`, `ec-p384`, `rsa-2048`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::Rsa2048 => "rsa-2048",
        }
    }
}

impl std::fmt::Display for KeyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a key cannot be made, read or used. Never holds a part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The random number generator or the key generation failed.
    #[error("generating a key failed in the cryptographic library")]
    Generate,
    /// Not an unencrypted PKCS#8 private key of a kind in use.
    #[error("private key is not an unencrypted PKCS#8 key of ECDSA P-256, ECDSA P-384 or RSA 2048 to 4096")]
    Private,
    /// Not a private key as a JWK of a kind in use.
    #[error("private key is not a JWK with kty EC, crv P-256 or P-384, x, y and d, and of the algorithm of its curve")]
    PrivateJwk,
    /// Not a SubjectPublicKeyInfo in DER.
    #[error("public key is not a SubjectPublicKeyInfo in DER")]
    Public,
    /// A kind of key that is not in use here.
    #[error("{found} keys are not accepted; use ECDSA P-256, ECDSA P-384, or RSA of 2048 to 4096 bits")]
    Unsupported {
        /// Such as `Ed25519` or `RSA 1024`.
        found: String,
    },
    /// The signer refused or failed.
    #[error("signing failed: {reason}")]
    Sign {
        /// Without any secret.
        reason: String,
    },
}
