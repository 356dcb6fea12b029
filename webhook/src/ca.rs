//! The webhook's own small CA: authorities that overlap, so that the API server trusts a new one before it signs and an
//! old one until nothing it signed is left. Pure: what is stored and a time in, a plan out.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// How long an authority lives; at half of it a successor is prepared.
const AUTHORITY_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long a serving certificate lives; at half of it a new one is issued.
pub const SERVING_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a new authority is in `caBundle` before it signs: many times what an API server takes to notice.
const PREPARED_FOR: Duration = Duration::from_secs(3600);
/// Certificates begin this much before now, for clocks that differ.
const BACKDATE: Duration = Duration::from_secs(60);

/// What is stored: the authorities, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaState {
    /// Oldest first.
    pub authorities: Vec<Authority>,
}

/// One authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// PEM.
    certificate: String,
    /// PKCS#8 as PEM.
    key: String,
    not_before: Timestamp,
    not_after: Timestamp,
    signs_from: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .field("signs_from", &self.signs_from)
            .finish_non_exhaustive()
    }
}

/// What is to be done with what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Keep,
    /// Add an authority which signs from then on.
    Add {
        /// From when it signs.
        signs_from: Timestamp,
    },
    /// Take the oldest so many away: nothing that they signed is left.
    Drop {
        /// How many.
        count: usize,
    },
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
    /// A time is out of range.
    #[error("a time is out of range")]
    Time,
}

/// A serving certificate of one replica. Its key is never stored.
pub struct Serving {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// When to have the next one.
    pub renew_at: Timestamp,
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

    /// For the Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
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
    pub fn after(&self, plan: Plan, now: Timestamp) -> Result<Self, CaError> {
        let mut next = self.clone();
        match plan {
            Plan::Keep => {}
            Plan::Add { signs_from } => next.authorities.push(Authority::generate(signs_from, now)?),
            Plan::Drop { count } => drop(next.authorities.drain(..count.min(self.authorities.len()))),
        }
        Ok(next)
    }

    /// Issues a serving certificate for `names`, signed by the authority whose turn it is.
    ///
    /// # Errors
    /// When there is none, or the certificate cannot be made.
    pub fn issue(&self, names: &[String], now: Timestamp) -> Result<Serving, CaError> {
        let signing = self.signing(now).ok_or(CaError::Damaged("no authority signs now"))?;
        let key = KeyPair::generate()?;
        let not_after = (now + SERVING_LIFE).min(signing.not_after);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.not_before = at(now - BACKDATE)?;
        params.not_after = at(not_after)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &signing.issuer()?)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let next_authority = self.authorities.iter().map(|authority| authority.signs_from).find(|from| *from > now);
        let half = now + (SERVING_LIFE / 2);
        Ok(Serving {
            chain: vec![leaf.der().clone()],
            key,
            renew_at: next_authority.map_or(half, |from| from.min(half)),
        })
    }

    fn signing(&self, now: Timestamp) -> Option<&Authority> {
        self.authorities.iter().rev().find(|authority| authority.signs_from <= now && now < authority.not_after)
    }
}

/// What is to be done now. An authority is prepared at half the life of the newest; its predecessors are dropped when
/// the last serving certificate which they signed has expired.
#[must_use]
pub fn next(state: &CaState, now: Timestamp) -> Plan {
    let Some(newest) = state.authorities.last().filter(|newest| now < newest.not_after) else {
        return Plan::Add { signs_from: now };
    };
    if now >= newest.not_before + AUTHORITY_LIFE / 2 {
        return Plan::Add { signs_from: now + PREPARED_FOR };
    }
    let done = |authority: &Authority| now >= authority.signs_from + SERVING_LIFE;
    match state.authorities.iter().rposition(done) {
        Some(count) if count > 0 => Plan::Drop { count },
        _ => Plan::Keep,
    }
}

impl Authority {
    fn generate(signs_from: Timestamp, now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let (not_before, not_after) = (now, now + AUTHORITY_LIFE);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Subjects differ, so that a verifier never takes one authority for another.
        let id: String = key.public_key_raw().iter().rev().take(8).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("countersign-webhook {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = at(not_before - BACKDATE)?;
        params.not_after = at(not_after)?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem(), not_before, not_after, signs_from })
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CaError> {
        let key = KeyPair::from_pem(&self.key).map_err(|_| CaError::Damaged("a key cannot be read"))?;
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|_| CaError::Damaged("a certificate cannot be read"))?;
        Issuer::from_ca_cert_der(&certificate, key).map_err(|_| CaError::Damaged("a certificate is no CA"))
    }
}

fn at(time: Timestamp) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(time.as_second()).map_err(|_| CaError::Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn first() -> CaState {
        let plan = next(&CaState::default(), start());
        assert_eq!(plan, Plan::Add { signs_from: start() });
        CaState::default().after(plan, start()).unwrap()
    }

    #[test]
    fn a_successor_is_trusted_before_it_signs_and_its_predecessor_until_nothing_of_it_is_left() {
        let state = first();
        assert_eq!(next(&state, start() + DAY * 44), Plan::Keep);
        let half = start() + DAY * 45;
        let plan = next(&state, half);
        assert_eq!(plan, Plan::Add { signs_from: half + PREPARED_FOR });
        let state = state.after(plan, half).unwrap();
        assert_eq!(state.bundle().matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(state.signing(half).unwrap(), &state.authorities[0]);
        assert_eq!(next(&state, half), Plan::Keep);
        let switch = half + PREPARED_FOR;
        assert_eq!(state.signing(switch).unwrap(), &state.authorities[1]);
        assert_eq!(next(&state, switch + DAY - Duration::from_secs(1)), Plan::Keep);
        assert_eq!(next(&state, switch + DAY), Plan::Drop { count: 1 });
        let after = state.after(Plan::Drop { count: 1 }, switch + DAY).unwrap();
        assert_eq!(after.authorities, state.authorities[1..]);
        assert_eq!(next(&after, switch + DAY), Plan::Keep);
    }

    #[test]
    fn an_expired_authority_is_replaced_at_once() {
        let state = first();
        let late = start() + DAY * 91;
        assert_eq!(next(&state, late), Plan::Add { signs_from: late });
        assert!(state.issue(&["a".into()], late).is_err());
        assert!(state.after(next(&state, late), late).unwrap().issue(&["a".into()], late).is_ok());
    }

    #[test]
    fn serving_certificates_are_renewed_at_half_their_life_or_when_the_authority_changes() {
        let state = first();
        assert_eq!(state.issue(&["a".into()], start()).unwrap().renew_at, start() + SERVING_LIFE / 2);
        let half = start() + DAY * 45;
        let state = state.after(next(&state, half), half).unwrap();
        assert_eq!(state.issue(&["a".into()], half).unwrap().renew_at, half + PREPARED_FOR);
    }

    #[test]
    fn the_bundle_verifies_what_is_served() {
        let state = first();
        let serving = state.issue(&["countersign-webhook.countersign-system.svc".into()], start()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(state.bundle().as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let verify = |name: &'static str, now: Timestamp| {
            let since = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now.as_second() as u64));
            rustls::client::danger::ServerCertVerifier::verify_server_cert(
                &*verifier,
                &serving.chain[0],
                &[],
                &name.try_into().unwrap(),
                &[],
                since,
            )
        };
        assert!(verify("countersign-webhook.countersign-system.svc", start()).is_ok());
        assert!(verify("another.svc", start()).is_err());
        assert!(verify("countersign-webhook.countersign-system.svc", start() + SERVING_LIFE + DAY).is_err());
    }

    #[test]
    fn what_is_stored_is_read_again_and_damage_is_named() {
        let state = first();
        assert_eq!(CaState::from_bytes(&state.to_bytes()).unwrap(), state);
        assert!(CaState::from_bytes(b"{}").is_err());
        let damaged = String::from_utf8(state.to_bytes()).unwrap().replace("BEGIN PRIVATE KEY", "BEGIN NOTHING");
        assert!(CaState::from_bytes(damaged.as_bytes()).unwrap_err().to_string().contains("delete it"));
    }

    // R87
    #[test]
    fn debug_output_holds_no_key() {
        let state = first();
        assert!(!format!("{state:?}").contains("PRIVATE"));
    }
}
