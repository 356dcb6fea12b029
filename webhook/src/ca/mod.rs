//! The webhook's own small CA: authorities that overlap, so that the API server trusts a new one before it signs and an
//! old one until nothing it signed is left. Pure: what is stored and a time in, a plan or a certificate out.

mod authority;
mod lives;
mod plan;
#[cfg(test)]
mod tests;

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

use crate::serving::ServingCertificate;

pub use authority::Authority;
pub use lives::Lives;
pub use plan::{Plan, next, next_event};

/// What is stored: the authorities, oldest first.
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
    /// What is stored is damaged.
    #[error("Secret countersign-webhook-ca is damaged ({0}): delete it, and a new CA is made")]
    Damaged(&'static str),
    /// What was issued does not verify.
    #[error(
        "a certificate just issued does not verify against caBundle ({0}), and is not stored: Secret countersign-webhook-ca \
         is damaged, or this machine's clock is wrong; if its clock is right, delete the Secret, and a new CA is made"
    )]
    Untrusted(rustls::Error),
    /// Lives under which an admission would fail.
    #[error("{0}")]
    Lives(String),
    /// A time is out of range.
    #[error("a time is out of range")]
    Time,
}

/// A serving certificate that was just issued, for the Secret from which the replicas read it.
pub struct Serving {
    /// The leaf, PEM.
    pub certificate: String,
    /// The leaf's key, PKCS#8 as PEM.
    pub key: Zeroizing<String>,
    /// What is known of it.
    pub served: Served,
}

/// What is known of a certificate that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    leaf: CertificateDer<'static>,
    /// The certificate of its authority, PEM; empty if no authority of the CA signed it.
    authority: String,
    /// When to have the next one, should the authority not change before.
    pub renew_at: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl CaState {
    /// Reads what [`CaState::to_bytes`] wrote.
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

    /// For the Secret. It holds private keys.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Sized in advance, so that growing leaves no copy of a key behind: an authority takes about 1.5 KiB.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024 + self.authorities.len() * 8 * 1024));
        if serde_json::to_writer(&mut *bytes, self).is_err() {
            bytes.clear();
        }
        bytes
    }

    /// Every authority's certificate, as `caBundle` wants them: PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    /// What `plan` makes of it.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub fn after(&self, plan: &Plan, lives: Lives, now: Timestamp) -> Result<Self, CaError> {
        let mut next = self.clone();
        match plan {
            Plan::Keep => {}
            Plan::Add { signs_from } => next.authorities.push(Authority::generate(*signs_from, lives, now)?),
            Plan::Drop { places } => {
                let mut place = 0..;
                next.authorities.retain(|_| place.next().is_none_or(|place| !places.contains(&place)));
            }
        }
        Ok(next)
    }

    /// Issues a serving certificate for `names`, signed by the authority whose turn it is and for as long as that one's
    /// certificates live.
    ///
    /// # Errors
    /// When there is none, or the certificate cannot be made.
    pub fn issue(&self, names: &[String], now: Timestamp) -> Result<Serving, CaError> {
        let signing = self.signing(now).ok_or(CaError::Damaged("no authority signs now"))?;
        let life = signing.serving_life();
        let not_after = (now + life).min(signing.not_after);
        let (certificate, key) = signing.sign(names, now, not_after)?;
        let (leaf, certificate) = (certificate.der().clone(), certificate.pem());
        let served = Served { leaf, authority: signing.certificate.clone(), renew_at: now + life / 2, not_after };
        Ok(Serving { certificate, key: Zeroizing::new(key.serialize_pem()), served })
    }

    /// What is known of a certificate that was stored. One that no authority of this CA signed is due at once.
    #[must_use]
    pub fn served(&self, stored: &ServingCertificate, now: Timestamp) -> Served {
        let signed_by = |authority: &&Authority| verify(stored.leaf(), &authority.certificate, None, now).is_ok();
        let authority = self.authorities.iter().find(signed_by).map(|authority| authority.certificate.clone());
        let issued_at = stored.not_before() + authority::BACKDATE;
        let life = Duration::try_from(issued_at.duration_until(stored.not_after())).unwrap_or_default();
        Served {
            leaf: stored.leaf().clone(),
            authority: authority.unwrap_or_default(),
            renew_at: issued_at + life / 2,
            not_after: stored.not_after(),
        }
    }

    /// Whether another certificate is to be served in the place of `served`: half its life is over, or it is another
    /// authority's turn.
    #[must_use]
    pub fn is_due(&self, served: &Served, now: Timestamp) -> bool {
        now >= served.renew_at
            || self.signing(now).is_none_or(|authority| authority.certificate != served.authority)
            || served.verify(&self.bundle(), now).is_err()
    }

    /// The newest whose turn it is; if there is none, then whoever is left: it is in `caBundle` at least.
    fn signing(&self, now: Timestamp) -> Option<&Authority> {
        let valid = || self.authorities.iter().rev().filter(|authority| now < authority.not_after);
        valid().find(|authority| authority.signs_from <= now).or_else(|| valid().next())
    }
}

impl Served {
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
        // The name is looked at last: everything else holds.
        Err(rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
        )) if name.is_none() => Ok(()),
        Err(error) => Err(CaError::Untrusted(error)),
    }
}
