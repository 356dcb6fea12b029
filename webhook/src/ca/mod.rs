//! The webhook's own small CA. Authorities overlap: API servers trust a new one before it signs, and an old one until
//! everything it signed has expired. Pure functions of the stored state and a time.

mod authority;
mod plan;
#[cfg(test)]
mod tests;
mod validity;

use std::time::Duration;

use jiff::Timestamp;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::serving::StoredCertificate;

pub use authority::Authority;
pub use plan::{Plan, next, next_event};
pub use validity::ValidityPeriods;

/// The stored state of the CA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaState {
    /// Oldest first.
    pub authorities: Vec<Authority>,
}

/// Why the CA failed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A key or certificate cannot be made.
    #[error("the webhook's CA cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The stored state is damaged.
    #[error("Secret countersign-webhook-ca is damaged ({0}): delete it, and a new CA is made")]
    Damaged(&'static str),
    /// A certificate that was just issued does not verify.
    #[error(
        "a certificate just issued does not verify against caBundle ({0}), and is not stored: Secret countersign-webhook-ca \
         is damaged, or this machine's clock is wrong; if its clock is right, delete the Secret, and a new CA is made"
    )]
    Untrusted(rustls::Error),
    /// Validity periods under which admissions would fail.
    #[error("{0}")]
    Validity(String),
    /// A time is out of range.
    #[error("a time is out of range")]
    Time,
}

/// A serving certificate that was just issued, for the Secret from which the replicas read it.
pub struct IssuedCertificate {
    /// The leaf, PEM.
    pub certificate: String,
    /// The leaf's key, PKCS#8 as PEM.
    pub key: Zeroizing<String>,
    /// Its authority and renewal time.
    pub served: ServedCertificate,
}

/// A certificate that is served: its authority and renewal time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedCertificate {
    leaf: CertificateDer<'static>,
    /// The certificate of its authority, PEM; empty if no authority of the CA signed it.
    authority: String,
    /// When it is renewed, unless the authority changes before.
    pub renew_at: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
}

impl CaState {
    /// Reads the output of [`CaState::to_bytes`].
    ///
    /// # Errors
    /// When it is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CaError> {
        let state: Self = serde_json::from_slice(bytes).map_err(|_| CaError::Damaged("it is no JSON of a CA"))?;
        for authority in &state.authorities {
            authority.issuer()?;
        }
        Ok(state)
    }

    /// The content of the Secret. It includes private keys.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Sized in advance, so that growing leaves no copy of a key behind: an authority takes about 1.5 KiB.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024 + self.authorities.len() * 8 * 1024));
        if serde_json::to_writer(&mut *bytes, self).is_err() {
            bytes.clear();
        }
        bytes
    }

    /// The certificates of all authorities as PEM, for `caBundle`.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    /// The state with `plan` applied.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub fn after(&self, plan: &Plan, periods: ValidityPeriods, now: Timestamp) -> Result<Self, CaError> {
        let mut next = self.clone();
        match plan {
            Plan::Keep => {}
            Plan::Add { signs_from } => next.authorities.push(Authority::generate(*signs_from, periods, now)?),
            Plan::Drop { indices } => {
                let mut index = 0..;
                next.authorities.retain(|_| index.next().is_none_or(|index| !indices.contains(&index)));
            }
        }
        Ok(next)
    }

    /// Issues a serving certificate for `names`, signed by the active authority and with the validity that it gives to its
    /// certificates.
    ///
    /// # Errors
    /// When there is no authority, or the certificate cannot be made.
    pub fn issue(&self, names: &[String], now: Timestamp) -> Result<IssuedCertificate, CaError> {
        let signing = self.signing(now).ok_or(CaError::Damaged("no authority signs now"))?;
        let validity = signing.serving_validity();
        let not_after = (now + validity).min(signing.not_after);
        let (certificate, key) = signing.sign(names, now, not_after)?;
        let (leaf, certificate) = (certificate.der().clone(), certificate.pem());
        let served =
            ServedCertificate { leaf, authority: signing.certificate.clone(), renew_at: now + validity / 2, not_after };
        Ok(IssuedCertificate { certificate, key: Zeroizing::new(key.serialize_pem()), served })
    }

    /// Authority and renewal time of a stored certificate. One that no authority of this CA signed is due at once.
    #[must_use]
    pub fn served(&self, stored: &StoredCertificate, now: Timestamp) -> ServedCertificate {
        let signed_by = |authority: &&Authority| verify(stored.leaf(), &authority.certificate, None, now).is_ok();
        let authority = self.authorities.iter().find(signed_by).map(|authority| authority.certificate.clone());
        let issued_at = stored.not_before() + authority::BACKDATE;
        let validity = Duration::try_from(issued_at.duration_until(stored.not_after())).unwrap_or_default();
        ServedCertificate {
            leaf: stored.leaf().clone(),
            authority: authority.unwrap_or_default(),
            renew_at: issued_at + validity / 2,
            not_after: stored.not_after(),
        }
    }

    /// Whether `served` must be replaced: half its validity is over, another authority is active, or it no longer verifies.
    #[must_use]
    pub fn is_due(&self, served: &ServedCertificate, now: Timestamp) -> bool {
        now >= served.renew_at
            || self.signing(now).is_none_or(|authority| authority.certificate != served.authority)
            || served.verify(&self.bundle(), now).is_err()
    }

    /// The active authority: the newest that already signs, or else any valid one, which is at least in `caBundle`.
    fn signing(&self, now: Timestamp) -> Option<&Authority> {
        let valid = || self.authorities.iter().rev().filter(|authority| now < authority.not_after);
        valid().find(|authority| authority.signs_from <= now).or_else(|| valid().next())
    }
}

impl ServedCertificate {
    /// Verifies the certificate as the API server does with `bundle` in `caBundle` (PEM), but for the name.
    ///
    /// # Errors
    /// When it does not verify.
    pub fn verify(&self, bundle: &str, now: Timestamp) -> Result<(), CaError> {
        verify(&self.leaf, bundle, None, now)
    }

    /// Verifies the certificate as the API server does with `bundle` in `caBundle` (PEM), called by `name`.
    ///
    /// # Errors
    /// When it does not verify.
    pub fn verify_for(&self, bundle: &str, name: &str, now: Timestamp) -> Result<(), CaError> {
        verify(&self.leaf, bundle, Some(name), now)
    }
}

fn verify(leaf: &CertificateDer<'_>, bundle: &str, name: Option<&str>, now: Timestamp) -> Result<(), CaError> {
    let unusable = |why: &str| CaError::Untrusted(rustls::Error::General(why.to_owned()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let certificate = certificate.map_err(|_| unusable("caBundle cannot be read"))?;
        roots.add(certificate).map_err(CaError::Untrusted)?;
    }
    let provider = std::sync::Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .map_err(|_| unusable("caBundle is empty"))?;
    let since = Duration::from_secs(u64::try_from(now.as_second()).map_err(|_| CaError::Time)?);
    let server = ServerName::try_from(name.unwrap_or("localhost")).map_err(|_| unusable("the name is no DNS name"))?;
    match verifier.verify_server_cert(leaf, &[], &server, &[], UnixTime::since_unix_epoch(since)) {
        Ok(_) => Ok(()),
        // The name is checked last, so everything else is valid.
        Err(rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
        )) if name.is_none() => Ok(()),
        Err(error) => Err(CaError::Untrusted(error)),
    }
}
