//! How an endpoint is authenticated: by certificate authorities that vouch for the host in its URL (SPIFFE Federation, section
//! 5.2.1), or as an X509-SVID by the bundle of its trust domain (section 5.2.2). What passes as one does not pass as the other.

use std::fmt;
use std::sync::Arc;

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::federation::FetchError;
use countersign_core::id::SpiffeId;
use countersign_verify::{
    Authorizer, PeerError,
    tls::{FixedBundles, SvidVerifier},
};
use jiff::Timestamp;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, Error, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::location::Location;

/// Says what time it is.
pub(crate) type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What all handshakes have in common.
#[derive(Clone)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    public_roots: Arc<RootCertStore>,
    clock: Arc<Clock>,
}

struct Clock(Now);

impl Tls {
    pub(crate) fn new(now: Now) -> Self {
        let public_roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            public_roots: Arc::new(public_roots),
            clock: Arc::new(Clock(now)),
        }
    }

    /// For `https_web`. Without `roots` (ASN.1 DER), the public ones verify the endpoint; otherwise these alone, and one that
    /// cannot be read verifies nothing.
    ///
    /// # Errors
    /// When none of `roots` can be read.
    pub(crate) fn web(&self, roots: &[Vec<u8>]) -> Result<TlsConnector, FetchError> {
        let roots = if roots.is_empty() { self.public_roots.clone() } else { Arc::new(read(roots)) };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone()).build();
        self.connector(verifier.map_err(|_| FetchError::UntrustedCertificate)?)
    }

    /// For `https_spiffe`: the endpoint's certificate is an X509-SVID of `id`, verified by `anchors`.
    ///
    /// # Errors
    /// When there are no anchors.
    pub(crate) fn spiffe(&self, id: &SpiffeId, anchors: Option<&Bundle>) -> Result<TlsConnector, FetchError> {
        let anchors = anchors.ok_or(FetchError::UntrustedCertificate)?;
        let bundles = BundleSet::new([anchors.clone()]).map_err(|_| FetchError::UntrustedCertificate)?;
        self.connector(Arc::new(SvidVerifier::new(
            Arc::new(FixedBundles(Arc::new(bundles))),
            Authorizer::from(id.clone()),
            &self.provider,
        )))
    }

    fn connector(&self, verifier: Arc<dyn ServerCertVerifier>) -> Result<TlsConnector, FetchError> {
        let builder = ClientConfig::builder_with_details(self.provider.clone(), self.clock.clone());
        let mut config = builder
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|_| FetchError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        // Each poll verifies the certificate anew: what verified it may have been revoked since.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from((self.0)().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

/// Authenticates the endpoint.
///
/// # Errors
/// When it is not the one that is meant, or the handshake fails for another reason.
pub(crate) async fn handshake(
    connector: &TlsConnector,
    location: &Location,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, FetchError> {
    connector.connect(location.server_name(), stream).await.map_err(|error| {
        match error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
            Some(cause @ Error::InvalidCertificate(_)) => match PeerError::of(cause) {
                Some(PeerError::NotAccepted { .. }) => FetchError::WrongEndpointId,
                _ => FetchError::UntrustedCertificate,
            },
            _ => FetchError::Tls,
        }
    })
}

fn read(roots: &[Vec<u8>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().map(|der| CertificateDer::from(der.as_slice())));
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_public_authorities() {
        let tls = Tls::new(Arc::new(Timestamp::now));
        assert!(!tls.public_roots.is_empty());
        assert!(tls.web(&[]).is_ok());
    }

    #[test]
    fn roots_that_cannot_be_read_are_not_replaced_by_the_public_ones() {
        let tls = Tls::new(Arc::new(Timestamp::now));
        assert_eq!(tls.web(&[b"no certificate".to_vec()]).err(), Some(FetchError::UntrustedCertificate));
    }
}
