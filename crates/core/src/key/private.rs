//! A private key in memory.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::jws::{Curve, JwkMembers, PublicJwk, read_object};

use super::{KeyError, KeyType, SignatureAlgorithm, Signer, SubjectPublicKeyInfo};

/// A private key; its bytes are wiped when the last clone goes. Cheap to clone.
#[derive(Clone)]
pub struct PrivateKey(Arc<Inner>);

struct Inner {
    pair: Pair,
    algorithm: SignatureAlgorithm,
    pkcs8: Zeroizing<Vec<u8>>,
    public_key: SubjectPublicKeyInfo,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    /// A new key of the operating system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Generate`].
    pub fn generate(key_type: KeyType) -> Result<Self, KeyError> {
        match key_type {
            KeyType::EcP256 => Self::generate_ec(&ECDSA_P256_SHA256_ASN1_SIGNING, SignatureAlgorithm::EcdsaP256Sha256),
            KeyType::EcP384 => Self::generate_ec(&ECDSA_P384_SHA384_ASN1_SIGNING, SignatureAlgorithm::EcdsaP384Sha384),
            KeyType::Rsa2048 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
                let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| KeyError::Generate)?;
                let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
                Self::new(Pair::Rsa(pair), SignatureAlgorithm::RsaPkcs1Sha256, pkcs8)
            }
        }
    }

    /// Reads an unencrypted PKCS#8 key in DER (RFC 5958).
    ///
    /// # Errors
    /// [`KeyError::Private`] when it is none, or of a kind that is not in use.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let pkcs8 = Zeroizing::new(der.to_vec());
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der) {
            return Self::new(Pair::Ec(pair), SignatureAlgorithm::EcdsaP256Sha256, pkcs8);
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, der) {
            return Self::new(Pair::Ec(pair), SignatureAlgorithm::EcdsaP384Sha384, pkcs8);
        }
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| KeyError::Private)?;
        Self::new(Pair::Rsa(pair), SignatureAlgorithm::RsaPkcs1Sha256, pkcs8)
    }

    /// Unencrypted PKCS#8, DER.
    pub fn pkcs8_der(&self) -> &Zeroizing<Vec<u8>> {
        &self.0.pkcs8
    }

    /// The private key as a JWK (RFC 7518, section 6.2.2), JSON, of an EC key; `None` of another.
    pub fn jwk_json(&self) -> Option<Zeroizing<String>> {
        let Pair::Ec(pair) = &self.0.pair else { return None };
        let scalar = AsBigEndian::<EcPrivateKeyBin<'_>>::as_be_bytes(&pair.private_key()).ok()?;
        let scalar = Zeroizing::new(URL_SAFE_NO_PAD.encode(scalar.as_ref()));
        let mut members = PublicJwk::from_spki(&self.0.public_key)?.members();
        members.insert("alg".to_owned(), self.0.algorithm.jose_name().into());
        let public = Value::Object(members).to_string();
        let open = public.strip_suffix('}')?;
        // At its whole size from the start: growing would leave a copy behind that nobody wipes.
        let mut json = Zeroizing::new(String::with_capacity(public.len() + scalar.len() + 16));
        json.push_str(open);
        json.push_str(",\"d\":\"");
        json.push_str(&scalar);
        json.push_str("\"}");
        Some(json)
    }

    /// Reads a private key as a JWK (RFC 7518, section 6.2.2): the inverse of [`Self::jwk_json`]. The key's bytes are wiped wherever they
    /// are copied to, but for `json`, which is the caller's.
    ///
    /// # Errors
    /// [`KeyError::PrivateJwk`] when it is none, is of a kind that is not in use, or its parts are not of one key.
    pub fn from_jwk(json: &[u8]) -> Result<Self, KeyError> {
        /// Borrowed, since a copy would not be wiped; a text with escapes cannot be, and base64url has none.
        #[derive(Deserialize)]
        struct Private<'a> {
            d: &'a str,
        }
        let members: JwkMembers = read_object(json).ok_or(KeyError::PrivateJwk)?;
        let Ok(Some(PublicJwk::Ec { curve, x, y })) = PublicJwk::from_members(&members) else {
            return Err(KeyError::PrivateJwk);
        };
        let (signing, algorithm) = match curve {
            Curve::P256 => (&ECDSA_P256_SHA256_ASN1_SIGNING, SignatureAlgorithm::EcdsaP256Sha256),
            Curve::P384 => (&ECDSA_P384_SHA384_ASN1_SIGNING, SignatureAlgorithm::EcdsaP384Sha384),
            Curve::P521 => return Err(KeyError::PrivateJwk),
        };
        if members.alg.is_some_and(|alg| alg != algorithm.jose_name()) {
            return Err(KeyError::PrivateJwk);
        }
        let Private { d } = read_object(json).ok_or(KeyError::PrivateJwk)?;
        // One longer than the key, so that a text of another length is noticed.
        let mut scalar = Zeroizing::new(vec![0; curve.coordinate() + 1]);
        let length = URL_SAFE_NO_PAD.decode_slice(d, &mut scalar).map_err(|_| KeyError::PrivateJwk)?;
        let scalar = scalar.get(..length).filter(|scalar| scalar.len() == curve.coordinate());
        let point = [&[0x04], x.as_slice(), y.as_slice()].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(signing, scalar.ok_or(KeyError::PrivateJwk)?, &point)
            .map_err(|_| KeyError::PrivateJwk)?;
        let document = pair.to_pkcs8v1().map_err(|_| KeyError::PrivateJwk)?;
        Self::new(Pair::Ec(pair), algorithm, Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Unencrypted PKCS#8 as a PEM block `PRIVATE KEY`, ending in a line feed.
    pub fn pkcs8_pem(&self) -> Zeroizing<String> {
        // Written by hand: `pem::Pem` would leave copies of the key behind that nobody wipes.
        let base64 =
            Zeroizing::new(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, self.0.pkcs8.as_slice()));
        // Sized in advance, so that growing leaves no copy either.
        let mut pem = Zeroizing::new(String::with_capacity(base64.len() + base64.len() / 64 + 64));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at_checked(64).unwrap_or((rest, ""));
            pem.push_str(line);
            pem.push('\n');
            rest = tail;
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        pem
    }

    /// The public half.
    pub fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.0.public_key
    }

    /// The public half, a SubjectPublicKeyInfo in DER.
    pub fn public_key_spki_der(&self) -> &[u8] {
        self.0.public_key.der()
    }

    /// The key identifier of the public half; see [`SubjectPublicKeyInfo::key_id`].
    pub fn key_id(&self) -> [u8; 20] {
        self.0.public_key.key_id()
    }

    fn generate_ec(signing: &'static EcdsaSigningAlgorithm, algorithm: SignatureAlgorithm) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(signing).map_err(|_| KeyError::Generate)?;
        let document = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
        Self::new(Pair::Ec(pair), algorithm, Zeroizing::new(document.as_ref().to_vec()))
    }

    fn new(pair: Pair, algorithm: SignatureAlgorithm, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let spki: PublicKeyX509Der<'_> = match &pair {
            Pair::Ec(pair) => pair.public_key().as_der(),
            Pair::Rsa(pair) => pair.public_key().as_der(),
        }
        .map_err(|_| KeyError::Private)?;
        let public_key = SubjectPublicKeyInfo::from_der(spki.as_ref())?;
        Ok(Self(Arc::new(Inner { pair, algorithm, pkcs8, public_key })))
    }
}

impl Signer for PrivateKey {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm
    }

    fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.0.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Sign { reason: "the cryptographic library refused".to_owned() };
        let random = SystemRandom::new();
        match &self.0.pair {
            Pair::Ec(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, redacted)", self.0.public_key.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyError, KeyType, PrivateKey};
    use zeroize::Zeroizing;

    #[test]
    fn a_private_key_as_a_jwk_is_read_as_it_was_written() {
        for key_type in [KeyType::EcP256, KeyType::EcP384] {
            let key = PrivateKey::generate(key_type).expect("a key");
            let read = PrivateKey::from_jwk(key.jwk_json().expect("an EC key").as_bytes()).expect("its own form");
            assert_eq!(read.public_key_spki_der(), key.public_key_spki_der());
            assert_eq!(read.pkcs8_der(), key.pkcs8_der());
        }
    }

    #[test]
    fn a_jwk_whose_parts_are_missing_of_another_key_or_of_another_length_is_refused() {
        let jwk = || PrivateKey::generate(KeyType::EcP256).unwrap().jwk_json().unwrap();
        let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        let (own, other) = (read(&jwk()), read(&jwk()));
        for (member, value) in [
            ("d", other["d"].clone()),
            ("d", "AAAA".into()),
            ("d", format!("{}AAAA", own["d"].as_str().unwrap()).into()),
            ("d", serde_json::Value::Null),
            ("x", other["x"].clone()),
            ("alg", "ES384".into()),
            ("crv", "P-384".into()),
            ("crv", "P-521".into()),
            ("kty", "OKP".into()),
        ] {
            let mut changed = own.clone();
            changed[member] = value.clone();
            let refused = PrivateKey::from_jwk(changed.to_string().as_bytes());
            assert_eq!(refused.map(drop), Err(KeyError::PrivateJwk), "{member}: {value}");
        }
        assert!(PrivateKey::from_jwk(b"[]").is_err());
    }

    #[test]
    fn every_form_of_a_key_is_in_a_buffer_that_is_wiped_and_did_not_grow() {
        for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            let key = PrivateKey::generate(key_type).expect("a key");
            let der: &Zeroizing<Vec<u8>> = key.pkcs8_der();
            let pem: Zeroizing<String> = key.pkcs8_pem();
            let base64 = der.len().div_ceil(3) * 4;
            assert_eq!(pem.capacity(), base64 + base64 / 64 + 64, "growing leaves a copy behind");
        }
    }
}
