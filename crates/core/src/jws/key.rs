//! Keys that verify tokens, prepared once.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;

use super::jwk::{Curve, PublicJwk};

/// The algorithms a SPIFFE token may be signed by (JWT-SVID, section 2.1; RFC 7518, sections 3.3 to
/// 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
}

/// A key that verifies signatures by the algorithms that fit it.
#[derive(Clone)]
pub(crate) struct VerificationKey {
    material: Material,
    /// Of the JWK's `alg`: the only algorithm this key is for.
    only: Option<Algorithm>,
}

#[derive(Clone)]
enum Material {
    /// `jsonwebtoken` builds a key anew for each signature. For RS256, by which clusters sign their tokens, that is a fifth of the
    /// cost of verifying, so it is built once.
    Rsa {
        rs256: Box<ParsedPublicKey>,
        other: DecodingKey,
    },
    /// Built once too: the key of a WIT was parsed before, to know that it is one.
    P256(Box<ParsedPublicKey>),
    P384(Box<ParsedPublicKey>),
    P521(Box<ParsedPublicKey>),
}

/// The signature is not of this key by this algorithm over this text.
#[derive(Debug)]
pub(crate) struct SignatureInvalid;

impl Algorithm {
    /// `None` for every name outside the list: `none` and `HS256` among them.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            _ => return None,
        })
    }

    /// The value of `alg`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
        }
    }
}

impl VerificationKey {
    /// Prepares a key. `alg` is the JWK's, when it has one. `None` when the numbers are no usable
    /// key: a point off its curve, a modulus outside 2048 to 8192 bits, an `alg` that is not for
    /// signatures.
    pub(crate) fn new(jwk: &PublicJwk, alg: Option<&str>) -> Option<Self> {
        let only = match alg {
            Some(name) => Some(Algorithm::from_name(name)?),
            None => None,
        };
        let material = match jwk {
            PublicJwk::Rsa { n, e } => {
                if !(2048 / 8..=8192 / 8).contains(&n.len()) {
                    return None;
                }
                let rs256 = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?;
                Material::Rsa { rs256: Box::new(rs256), other: DecodingKey::from_rsa_raw_components(n, e) }
            }
            PublicJwk::Ec { curve, x, y } => {
                let point = [&[0x04][..], x, y].concat();
                let parsed = |algorithm| ParsedPublicKey::new(algorithm, &point).ok().map(Box::new);
                match curve {
                    Curve::P256 => Material::P256(parsed(&ECDSA_P256_SHA256_FIXED)?),
                    Curve::P384 => Material::P384(parsed(&ECDSA_P384_SHA384_FIXED)?),
                    Curve::P521 => Material::P521(parsed(&ECDSA_P521_SHA512_FIXED)?),
                }
            }
        };
        Some(Self { material, only })
    }

    /// Whether it can have made a signature by `algorithm`.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        let made = match &self.material {
            Material::Rsa { .. } => !matches!(algorithm, Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512),
            Material::P256(_) => algorithm == Algorithm::Es256,
            Material::P384(_) => algorithm == Algorithm::Es384,
            Material::P521(_) => algorithm == Algorithm::Es512,
        };
        made && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether this key made `signature`, in the form of JOSE, of `message` by `algorithm`.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureInvalid> {
        use jsonwebtoken::Algorithm as Jose;
        if self.only.is_some_and(|only| only != algorithm) {
            return Err(SignatureInvalid);
        }
        let (key, algorithm) = match (&self.material, algorithm) {
            (Material::Rsa { rs256: key, .. }, Algorithm::Rs256)
            | (Material::P256(key), Algorithm::Es256)
            | (Material::P384(key), Algorithm::Es384)
            | (Material::P521(key), Algorithm::Es512) => {
                return key.verify_sig(message, signature).map_err(|_| SignatureInvalid);
            }
            (Material::Rsa { other, .. }, Algorithm::Rs384) => (other, Jose::RS384),
            (Material::Rsa { other, .. }, Algorithm::Rs512) => (other, Jose::RS512),
            (Material::Rsa { other, .. }, Algorithm::Ps256) => (other, Jose::PS256),
            (Material::Rsa { other, .. }, Algorithm::Ps384) => (other, Jose::PS384),
            (Material::Rsa { other, .. }, Algorithm::Ps512) => (other, Jose::PS512),
            _ => return Err(SignatureInvalid),
        };
        match jsonwebtoken::crypto::verify(&URL_SAFE_NO_PAD.encode(signature), message, key, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(SignatureInvalid),
        }
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.material {
            Material::Rsa { .. } => "VerificationKey(RSA)",
            Material::P256(_) => "VerificationKey(P-256)",
            Material::P384(_) => "VerificationKey(P-384)",
            Material::P521(_) => "VerificationKey(P-521)",
        })
    }
}
