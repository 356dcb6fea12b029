//! Keys of JWT-SVIDs, and tokens signed with them: of any header and claims, right or wrong.

use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::authority::after;

/// The audience of tokens, and of the validator.
pub(crate) const AUDIENCE: &str = "conformance";

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A key pair with the algorithm it signs by.
pub(crate) struct JwtKey {
    pub(crate) kid: String,
    alg: &'static str,
    pair: Pair,
}

enum Pair {
    Ec(EcdsaKeyPair, &'static str),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ed25519(Ed25519KeyPair),
}

impl JwtKey {
    /// A new key with a `kid` of its own.
    pub(crate) fn generate(alg: &'static str) -> Self {
        let rsa = |encoding| Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), encoding);
        let ec = |signing, curve| Pair::Ec(EcdsaKeyPair::generate(signing).unwrap(), curve);
        let pair = match alg {
            "ES256" => ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "ES512" => ec(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            "EdDSA" => Pair::Ed25519(Ed25519KeyPair::generate().unwrap()),
            other => panic!("no key for {other}"),
        };
        Self { kid: format!("key-{}", NUMBER.fetch_add(1, Ordering::Relaxed)), alg, pair }
    }

    /// Its public half as a bundle has it (SPIFFE Trust Domain and Bundle, section 4.2).
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Ec(key, curve) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Pair::Rsa(key, _) => {
                let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
                let (_, spki) = SubjectPublicKeyInfo::from_der(spki.as_ref()).unwrap();
                let PublicKey::RSA(public) = spki.parsed().unwrap() else { panic!("not an RSA key") };
                let number = |bytes: &[u8]| encode(bytes.strip_prefix(&[0]).unwrap_or(bytes));
                json!({"kty": "RSA", "n": number(public.modulus), "e": number(public.exponent)})
            }
            Pair::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref())}),
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("jwt-svid");
        jwk
    }

    /// Its public half as SubjectPublicKeyInfo, PEM.
    pub(crate) fn public_pem(&self) -> String {
        let Pair::Ec(key, _) = &self.pair else { panic!("only of elliptic curves") };
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let body = base64::engine::general_purpose::STANDARD.encode(spki.as_ref());
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    pub(crate) fn header(&self) -> Value {
        json!({"alg": self.alg, "kid": self.kid, "typ": "JWT"})
    }

    /// A token of this identity that is right in every way.
    pub(crate) fn token(&self, id: &str) -> String {
        self.sign(&self.header(), &claims(id))
    }

    /// A token of any header and claims.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let input = input(header, claims);
        format!("{input}.{}", encode(&self.signature(input.as_bytes())))
    }

    pub(crate) fn signature(&self, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(key, _) => key.sign(&random, input).unwrap().as_ref().to_vec(),
            Pair::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, input, &mut signature).unwrap();
                signature
            }
            Pair::Ed25519(key) => key.sign(input).as_ref().to_vec(),
        }
    }

    /// The signature of a P-256 key over SHA-384, of which ECDSA takes as many bits as the curve has.
    pub(crate) fn p256_signature_over_sha384(&self, input: &[u8]) -> Vec<u8> {
        let Pair::Ec(key, "P-256") = &self.pair else { panic!("only of P-256") };
        let long = digest::digest(&digest::SHA384, input);
        let digest = Digest::import_less_safe(&long.as_ref()[..32], &digest::SHA256).unwrap();
        key.sign_digest(&digest).unwrap().as_ref().to_vec()
    }
}

/// The claims of a right token.
pub(crate) fn claims(id: &str) -> Value {
    json!({"sub": id, "aud": [AUDIENCE], "iat": seconds(0), "exp": seconds(300)})
}

/// So many seconds from now, as in a token.
pub(crate) fn seconds(from_now: i64) -> i64 {
    after(from_now).unix_timestamp()
}

/// What of a token is signed.
pub(crate) fn input(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

/// A bundle of these keys.
pub(crate) fn jwks(keys: impl IntoIterator<Item = Value>) -> Vec<u8> {
    json!({"keys": keys.into_iter().collect::<Vec<_>>()}).to_string().into_bytes()
}
