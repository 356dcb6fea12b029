//! Our keys as `rcgen` wants to see them.

use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey,
};

use crate::key::{KeyKind, Signer, SubjectPublicKeyInfo};

/// A [`Signer`] that signs what `rcgen` builds.
pub(crate) struct RcgenSigner(Box<dyn Signer>);

impl RcgenSigner {
    pub(crate) fn new(signer: impl Signer + 'static) -> Self {
        Self(Box::new(signer))
    }

    pub(super) fn public_key(&self) -> &SubjectPublicKeyInfo {
        self.0.public_key()
    }
}

impl PublicKeyData for RcgenSigner {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().key_bits()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        algorithm(self.0.public_key().kind())
    }
}

impl SigningKey for RcgenSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        // Why it failed the signer's own telemetry says; `rcgen` has room for the fact alone.
        self.0.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// The public key of a certificate's subject.
pub(super) struct Subject<'a>(pub(super) &'a SubjectPublicKeyInfo);

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.key_bits()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        algorithm(self.0.kind())
    }
}

fn algorithm(kind: KeyKind) -> &'static SignatureAlgorithm {
    match kind {
        KeyKind::EcP256 => &PKCS_ECDSA_P256_SHA256,
        KeyKind::EcP384 => &PKCS_ECDSA_P384_SHA384,
        KeyKind::Rsa { .. } => &PKCS_RSA_SHA256,
    }
}
