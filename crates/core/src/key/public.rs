//! Public keys as they stand in certificates and requests.

use std::fmt;

use aws_lc_rs::digest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

use super::KeyError;

/// SubjectPublicKeyInfo of ECDSA P-256 up to its point: id-ecPublicKey, prime256v1, BIT STRING of
/// 65 octets (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same of ECDSA P-384: secp384r1, BIT STRING of 97 octets.
const P384_PREFIX: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00,
];
/// The AlgorithmIdentifier of an RSA key: rsaEncryption, NULL (RFC 3279, section 2.3.1).
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// First octet of an uncompressed point (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 0x04;

/// A public key of a kind that is in use here, with its SubjectPublicKeyInfo in the one DER
/// encoding it has (RFC 5280, section 4.1). Elliptic-curve points are uncompressed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SubjectPublicKeyInfo {
    der: Vec<u8>,
    /// Where the content of the BIT STRING begins in `der`.
    bits_at: usize,
    kind: KeyKind,
}

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcP256,
    /// ECDSA on P-384.
    EcP384,
    /// RSA.
    Rsa {
        /// Of the modulus.
        bits: usize,
    },
}

impl SubjectPublicKeyInfo {
    /// Reads a SubjectPublicKeyInfo. Whether an elliptic-curve point lies on its curve shows when a
    /// signature is verified.
    ///
    /// # Errors
    /// [`KeyError::Public`] when it is not strict DER, [`KeyError::Unsupported`] when the kind is not in use.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let ec = |prefix: &[u8], coordinate: usize, kind| {
            let point = der.strip_prefix(prefix)?;
            let whole = point.len() == 1 + 2 * coordinate && point.first() == Some(&UNCOMPRESSED);
            whole.then(|| Self { der: der.to_vec(), bits_at: prefix.len(), kind })
        };
        match ec(&P256_PREFIX, 32, KeyKind::EcP256).or_else(|| ec(&P384_PREFIX, 48, KeyKind::EcP384)) {
            Some(key) => Ok(key),
            None => Self::from_other(der),
        }
    }

    /// ASN.1 DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The content of `subjectPublicKey`: an uncompressed point, or an `RSAPublicKey` in DER.
    pub fn key_bits(&self) -> &[u8] {
        self.der.get(self.bits_at..).unwrap_or_default()
    }

    /// The key identifier: the leftmost 160 bits of the SHA-256 of [`Self::key_bits`] (RFC 7093,
    /// section 2, method 1).
    pub fn key_id(&self) -> [u8; 20] {
        let mut id = [0; 20];
        let hash = digest::digest(&digest::SHA256, self.key_bits());
        for (to, from) in id.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        id
    }

    fn from_other(der: &[u8]) -> Result<Self, KeyError> {
        let (rest, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Public)?;
        if !rest.is_empty() || parsed.subject_public_key.unused_bits != 0 {
            return Err(KeyError::Public);
        }
        let bits = parsed.subject_public_key.data.as_ref();
        if parsed.algorithm.algorithm != OID_PKCS1_RSAENCRYPTION {
            let curve = parsed.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            return Err(unsupported(&parsed.algorithm.algorithm, curve.as_ref(), bits));
        }
        let modulus_bits = rsa_modulus_bits(bits)?;
        if !(2048..=4096).contains(&modulus_bits) {
            return Err(KeyError::Unsupported { found: format!("RSA {modulus_bits}") });
        }
        let bits_at = der.len().saturating_sub(bits.len());
        let key = Self { der: der.to_vec(), bits_at, kind: KeyKind::Rsa { bits: modulus_bits } };
        // The parser forgives what follows a field within its SEQUENCE; one encoding only is
        // accepted.
        if rsa_spki(bits) == der { Ok(key) } else { Err(KeyError::Public) }
    }
}

impl fmt::Debug for SubjectPublicKeyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectPublicKeyInfo({}, ", self.kind)?;
        self.key_id().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcP256 => f.write_str("ECDSA P-256"),
            Self::EcP384 => f.write_str("ECDSA P-384"),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
        }
    }
}

fn rsa_modulus_bits(rsa_public_key: &[u8]) -> Result<usize, KeyError> {
    let (rest, key) = RSAPublicKey::from_der(rsa_public_key).map_err(|_| KeyError::Public)?;
    // A first bit that is set is the sign: negative.
    if key.modulus.first().is_none_or(|first| first & 0x80 != 0) {
        return Err(KeyError::Public);
    }
    let modulus = key.modulus.strip_prefix(&[0]).unwrap_or(key.modulus);
    let exponent = key.try_exponent().map_err(|_| KeyError::Public)?;
    let canonical =
        rest.is_empty() && rsa_public_key == sequence(0x30, &[&integer(key.modulus), &integer(key.exponent)]);
    if !canonical || exponent < 3 || exponent % 2 == 0 {
        return Err(KeyError::Public);
    }
    let leading = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    Ok((modulus.len() * 8).saturating_sub(leading))
}

fn rsa_spki(bits: &[u8]) -> Vec<u8> {
    sequence(0x30, &[&RSA_ALGORITHM, &sequence(0x03, &[&[0], bits])])
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    sequence(0x02, &[bytes])
}

/// A DER value of at most 65,535 octets; keys of more are refused before.
fn sequence(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut der = match (high, low) {
        (0, low @ 0..=0x7f) => vec![tag, low],
        (0, low) => vec![tag, 0x81, low],
        (high, low) => vec![tag, 0x82, high, low],
    };
    der.extend(content);
    der
}

fn unsupported(algorithm: &Oid<'_>, curve: Option<&Oid<'_>>, bits: &[u8]) -> KeyError {
    let found = if *algorithm == OID_SIG_ED25519 {
        "Ed25519".to_owned()
    } else if *algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        format!("algorithm {algorithm}")
    } else {
        match curve {
            Some(curve) if *curve == OID_EC_P256 || *curve == OID_NIST_EC_P384 => {
                if bits.first() == Some(&UNCOMPRESSED) {
                    return KeyError::Public;
                }
                "compressed elliptic-curve".to_owned()
            }
            Some(curve) if *curve == OID_NIST_EC_P521 => "ECDSA P-521".to_owned(),
            Some(curve) => format!("elliptic-curve {curve}"),
            None => "elliptic-curve with explicit parameters".to_owned(),
        }
    };
    KeyError::Unsupported { found }
}
