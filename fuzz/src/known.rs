//! Trust of the targets' verifiers: one public test key, and the key sets and bundles that contain it. Fuzzer input may be
//! signed with it, so that it gets past the signature check.

use std::sync::LazyLock;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::id::TrustDomain;
use countersign_core::jwt::JwtAuthority;
use countersign_core::key::{PrivateKey, Signer as _};
use countersign_core::service_account::ClusterJwks;
use countersign_core::wit::WitAuthority;
use countersign_core::x509::CaCertificate;
use jiff::Timestamp;
use serde_json::json;

/// The key id of the known key.
pub(crate) const KID: &str = "known";
/// The key id of the known key as authority of WITs: no two keys of a bundle share one.
pub(crate) const WIT_KID: &str = "known-wit";
/// The audience of tokens.
pub(crate) const AUDIENCE: &str = "orders";
/// The issuer of service account tokens.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";
/// The trust domain of the known bundle.
pub(crate) const DOMAIN: &str = "example.org";

/// The certificate of the known key; created once by `seeds`, because each certificate gets a new serial number.
pub(crate) const ROOT: &[u8] = include_bytes!("../fixtures/root.der");

/// The WIT of the known workload; created once by `seeds`, because each signature is another one.
pub(crate) const WIT: &str = include_str!("../fixtures/workload.wit");
/// The first byte of the scalar of the known workload's key.
pub(crate) const WORKLOAD_KEY: u8 = 41;

/// The known key and everything derived from it.
pub(crate) struct Known {
    /// P-256; its scalar is 1, 2, … 32.
    pub(crate) key: PrivateKey,
    /// Signs as `KID`.
    pub(crate) jwt: JwtAuthority,
    /// The bundle of `DOMAIN`, with the known key as authority of both kinds.
    pub(crate) bundle: Bundle,
    /// A set with only that bundle.
    pub(crate) bundles: BundleSet,
    /// A set with only the bundle of `DOMAIN`, with the known key as authority of WITs alone.
    pub(crate) wit_bundles: BundleSet,
    /// The key that [`WIT`] confirms.
    pub(crate) workload: PrivateKey,
    /// A cluster's key set with only the known key.
    pub(crate) jwks: ClusterJwks,
    /// The same as JSON.
    pub(crate) jwks_json: Vec<u8>,
}

pub(crate) static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let key = key(1);
    let jwt = JwtAuthority::new(KID, key.clone()).unwrap();
    let mut jwk = jwt.verification_key().jwk();
    jwk.insert("use".to_owned(), json!("sig"));
    let jwks_json = json!({ "keys": [jwk] }).to_string().into_bytes();
    let bundle = Bundle {
        trust_domain: trust_domain(),
        x509_authorities: vec![CaCertificate::from_der(ROOT).unwrap()],
        jwt_authorities: vec![jwt.verification_key().clone()],
        wit_authorities: Vec::new(),
        sequence: 7,
        refresh_hint: std::time::Duration::from_secs(300),
    };
    let wit = WitAuthority::new(WIT_KID, key.clone()).unwrap();
    let wit_bundle = Bundle {
        x509_authorities: Vec::new(),
        jwt_authorities: Vec::new(),
        wit_authorities: vec![wit.verification_key().clone()],
        ..bundle.clone()
    };
    Known {
        wit_bundles: BundleSet::new([wit_bundle]).unwrap(),
        workload: self::key(WORKLOAD_KEY),
        jwks: ClusterJwks::parse(&jwks_json).unwrap(),
        bundles: BundleSet::new([bundle.clone()]).unwrap(),
        key,
        jwt,
        bundle,
        jwks_json,
    }
});

/// The time at which every target runs: 2026-09-21.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

/// [`DOMAIN`].
pub(crate) fn trust_domain() -> TrustDomain {
    DOMAIN.parse().unwrap()
}

/// A P-256 key that is not secret: the bytes of its scalar count up from `first`.
pub(crate) fn key(first: u8) -> PrivateKey {
    const PKCS8: [u8; 35] = [
        0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
    ];
    let scalar: Vec<u8> = (first..first + 32).collect();
    PrivateKey::from_pkcs8_der(&[&PKCS8[..], &scalar].concat()).unwrap()
}

impl Known {
    /// Whether the known workload's key made this signature as ES256, according to the cryptographic library itself.
    pub(crate) fn is_by_workload(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.workload.public_key().key_bits()).unwrap();
        key.verify_sig(message, signature).is_ok()
    }
}

/// A token in compact form with any header and claims, signed by the known key as ES256.
pub(crate) fn token(header: &[u8], claims: &[u8]) -> String {
    token_by(&KNOWN.key, header, claims)
}

/// A token in compact form with any header and claims, signed by `key` as ES256.
pub(crate) fn token_by(key: &PrivateKey, header: &[u8], claims: &[u8]) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(signature(key, input.as_bytes()));
    format!("{input}.{signature}")
}

/// The signature of `message` by `key` as ES256.
pub(crate) fn signature(key: &PrivateKey, message: &[u8]) -> Vec<u8> {
    fixed(&key.sign(message).unwrap())
}

/// Whether the text before the last dot is signed by the known key as ES256, according to the cryptographic library itself.
pub(crate) fn is_signed(token: &str) -> bool {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, KNOWN.key.public_key().key_bits()).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    key.verify_sig(input.as_bytes(), &signature).is_ok()
}

/// `r` and `s` of 32 bytes each, of an ECDSA signature in DER (RFC 3279, 2.2.3).
fn fixed(der: &[u8]) -> Vec<u8> {
    let r = usize::from(der[3]);
    let numbers = [&der[4..4 + r], &der[6 + r..]];
    let mut fixed = Vec::with_capacity(64);
    for number in numbers {
        let digits = &number[number.iter().take_while(|byte| **byte == 0).count()..];
        fixed.resize(fixed.len() + 32 - digits.len(), 0);
        fixed.extend_from_slice(digits);
    }
    fixed
}
