//! Authorities, bundles, and forgeries of what they sign.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::id::{SpiffeId, TrustDomain};
use countersign_core::jwt::JwtAuthority;
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::x509::{CaCertificate, X509Authority};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::Value;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// 2026-09-21, on a whole second.
pub(crate) fn now() -> Timestamp {
    at(0)
}

/// So many seconds after [`now`].
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

pub(crate) fn trust_domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

pub(crate) fn authority(name: &str) -> X509Authority {
    X509Authority::generate(&trust_domain(name), KeyType::EcP256, DAY, now()).unwrap()
}

pub(crate) fn bundle(name: &str, x509: &[&CaCertificate], jwt: &[&JwtAuthority]) -> Bundle {
    Bundle {
        trust_domain: trust_domain(name),
        x509_authorities: x509.iter().map(|certificate| (*certificate).clone()).collect(),
        jwt_authorities: jwt.iter().map(|authority| authority.verification_key().clone()).collect(),
        wit_authorities: Vec::new(),
        sequence: 1,
        refresh_hint: Duration::from_secs(300),
    }
}

pub(crate) fn trusting(bundles: impl IntoIterator<Item = Bundle>) -> BundleSet {
    BundleSet::new(bundles).unwrap()
}

/// An authority that signs whatever a test asks of it.
pub(crate) struct Forger {
    pub(crate) certificate: CaCertificate,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Forger {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(|params| params.subject_alt_names = vec![uri(&format!("spiffe://{name}"))])
    }

    /// One whose own certificate differs from the usual.
    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = ca_params(change);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate: CaCertificate::from_der(certificate.der()).unwrap(), issuer: Issuer::new(params, key) }
    }

    /// A leaf that is right but for what `change` does to it.
    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let params = leaf_params(change);
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().to_vec()
    }

    /// An intermediate that is right but for what `change` does to it.
    pub(crate) fn intermediate(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<u8>, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(change);
        params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        (der, Issuer::new(params, key))
    }
}

pub(crate) fn ca_params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = validity(CertificateParams::default());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    params
}

pub(crate) fn leaf_params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = validity(CertificateParams::default());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![uri("spiffe://example.org/ns/shop/sa/cart")];
    change(&mut params);
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn clock(time: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap()
}

fn validity(mut params: CertificateParams) -> CertificateParams {
    params.not_before = clock(at(-60));
    params.not_after = clock(at(3600));
    params
}

/// A token of any header and claims, signed by `key` as `algorithm`.
pub(crate) fn token(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let input = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(input.as_bytes(), key, algorithm).unwrap();
    format!("{input}.{signature}")
}

/// One part of a token: JSON, or any text when it is a JSON string.
pub(crate) fn part(value: &Value) -> String {
    match value {
        Value::String(text) => URL_SAFE_NO_PAD.encode(text),
        value => URL_SAFE_NO_PAD.encode(value.to_string()),
    }
}

pub(crate) fn ec_key(key: &PrivateKey) -> EncodingKey {
    EncodingKey::from_ec_der(key.pkcs8_der())
}

pub(crate) fn rsa_key(key: &PrivateKey) -> EncodingKey {
    EncodingKey::from_rsa_pem(key.pkcs8_pem().as_bytes()).unwrap()
}
