//! One authority: a key, its certificate, and the time from which it signs.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroize as _;

use super::{CaError, ValidityPeriods};

/// `notBefore` of certificates is this much before the time of issue, for API servers whose clocks are behind.
pub(super) const BACKDATE: Duration = Duration::from_secs(2 * 3600);
/// The validity of serving certificates in releases that did not store it.
const DEFAULT_SERVING_SECONDS: u64 = 24 * 3600;

/// One authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// PEM.
    pub(super) certificate: String,
    key: KeyPem,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// The time from which it signs; its predecessor signs until then.
    pub(super) signs_from: Timestamp,
    /// The longest validity of a certificate that it signs. Stored, so that all replicas agree on when everything it signed
    /// has expired, whatever their flags.
    #[serde(default = "default_serving_seconds")]
    serving_seconds: u64,
}

/// PKCS#8 as PEM, zeroized on drop.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct KeyPem(String);

impl Drop for KeyPem {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .field("signs_from", &self.signs_from)
            .finish_non_exhaustive()
    }
}

impl Authority {
    pub(super) fn generate(signs_from: Timestamp, periods: ValidityPeriods, now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let (not_before, not_after) = (now, now + periods.authority);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Each authority has its own subject, so that a verifier never confuses two.
        let id: String = key.public_key_raw().iter().rev().take(8).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("countersign-webhook {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = at(not_before - BACKDATE)?;
        params.not_after = at(not_after)?;
        let certificate = params.self_signed(&key)?.pem();
        let serving_seconds = periods.serving.as_secs();
        Ok(Self { certificate, key: KeyPem(key.serialize_pem()), not_before, not_after, signs_from, serving_seconds })
    }

    /// A certificate for `names` and its key.
    pub(super) fn sign(
        &self,
        names: &[String],
        now: Timestamp,
        not_after: Timestamp,
    ) -> Result<(Certificate, KeyPair), CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.not_before = at(now - BACKDATE)?;
        params.not_after = at(not_after)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok((params.signed_by(&key, &self.issuer()?)?, key))
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CaError> {
        let key = KeyPair::from_pem(&self.key.0).map_err(|_| CaError::Damaged("a key cannot be read"))?;
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|_| CaError::Damaged("a certificate cannot be read"))?;
        Issuer::from_ca_cert_der(&certificate, key).map_err(|_| CaError::Damaged("a certificate is no CA"))
    }

    pub(super) fn serving_validity(&self) -> Duration {
        Duration::from_secs(self.serving_seconds)
    }

    pub(super) fn validity(&self) -> Duration {
        Duration::try_from(self.not_before.duration_until(self.not_after)).unwrap_or_default()
    }
}

fn default_serving_seconds() -> u64 {
    DEFAULT_SERVING_SECONDS
}

fn at(time: Timestamp) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(time.as_second()).map_err(|_| CaError::Time)
}
