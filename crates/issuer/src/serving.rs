//! The issuer's serving certificate: each replica has its own key in memory, signed by the control plane's root, renewed
//! at half of its life and swapped under running connections.

use std::{ops::Range, sync::Arc, time::Duration};

use countersign_core::{
    key::{KeyError, KeyType, PrivateKey},
    renewal,
    x509::{IssueError, X509Authority},
};
use jiff::Timestamp;
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use crate::published::Published;
use countersign_runtime::{clock::Clock, readiness::ReadinessCheck, tls::ServingCertificate};

/// How long a serving certificate lives.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// No key could be made.
    #[error("the serving key could not be made: {0}")]
    Key(#[from] KeyError),
    /// The control plane's root did not sign.
    #[error("the control plane's root did not sign the serving certificate: {0}")]
    Issue(#[from] IssueError),
    /// The TLS library does not take it.
    #[error("the serving certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// Keeps the certificate valid and signed by the current root for as long as the process lives.
pub async fn keep_fresh(
    certificate: Arc<ServingCertificate>,
    names: Vec<String>,
    mut published: watch::Receiver<Arc<Published>>,
    clock: Clock,
    check: ReadinessCheck,
) {
    let mut signed_by: Option<Vec<u8>> = None;
    // From its first moment to its renewal: a clock that was set back finds itself before it.
    let mut good = Range { start: Timestamp::MAX, end: Timestamp::MIN };
    loop {
        let authority = published.borrow_and_update().control_plane.clone();
        let now = clock.now();
        if let Some(authority) = authority {
            let root = authority.certificate().subject_key_id().to_vec();
            if signed_by.as_ref() != Some(&root) || !good.contains(&now) {
                match issue(&authority, &names, now) {
                    Ok((key, issued)) => {
                        certificate.publish(key);
                        (signed_by, good) = (Some(root), issued);
                        check.pass();
                        tracing::info!(renew_at = %good.end, "serving certificate issued");
                    }
                    Err(error) => {
                        tracing::error!(%error, "no serving certificate; trying again");
                        good = now..now.checked_add(RETRY).unwrap_or(Timestamp::MAX);
                    }
                }
            }
        }
        tokio::select! {
            () = clock.draws_near(good.end), if good.start <= good.end => {}
            changed = published.changed() => if changed.is_err() { return },
        }
    }
}

fn issue(
    authority: &X509Authority,
    names: &[String],
    now: Timestamp,
) -> Result<(CertifiedKey, Range<Timestamp>), ServingError> {
    let key = PrivateKey::generate(KeyType::EcP256)?;
    let issued = authority.issue_server(key.public_key(), names, LIFE, now)?;
    let chain = issued.chain.into_iter().map(CertificateDer::from).collect();
    // Borrowed: a copy would be wiped by nobody.
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().as_slice()));
    let signing = aws_lc_rs::sign::any_supported_type(&der)?;
    // Replicas start together and should not renew together.
    let jitter = rand::random_range(-1.0..=1.0);
    let renew_at = renewal::renew_at(issued.not_before, issued.not_after, jitter);
    Ok((CertifiedKey::new(chain, signing), issued.not_before..renew_at))
}

#[cfg(test)]
mod tests;
