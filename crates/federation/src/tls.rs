//! How an endpoint is authenticated: by certificate authorities that vouch for the host in its URL (SPIFFE Federation, section
//! 5.2.1), or as an X509-SVID by the bundle of its trust domain (section 5.2.2). What passes as one does not pass as the other.

use std::fmt;
use std::sync::Arc;

use countersign_core::bundle::{Bundle, BundleSet};
use countersign_core::federation::FetchError;
use countersign_core::id::SpiffeId;
use countersign_core::x509::{X509SvidError, verify_x509_svid};
use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
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
        let algorithms = self.provider.signature_verification_algorithms;
        self.connector(Arc::new(SvidVerifier { id: id.clone(), bundles, algorithms }))
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
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
        match cause {
            Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
                FetchError::WrongEndpointId
            }
            Some(Error::InvalidCertificate(_)) => FetchError::UntrustedCertificate,
            _ => FetchError::Tls,
        }
    })
}

fn read(roots: &[Vec<u8>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().map(|der| CertificateDer::from(der.as_slice())));
    store
}

/// Accepts the X509-SVID of one id (SPIFFE Federation, section 5.2.2.4). The host in the URL does not matter.
#[derive(Debug)]
struct SvidVerifier {
    id: SpiffeId,
    /// That of one trust domain.
    bundles: BundleSet,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for SvidVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<&[u8]> = std::iter::once(leaf).chain(intermediates).map(|der| der.as_ref()).collect();
        let now = i64::try_from(now.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let now = now.ok_or(Error::FailedToGetCurrentTime)?;
        match verify_x509_svid(&chain, &self.bundles, now) {
            Ok(id) if id == self.id => Ok(ServerCertVerified::assertion()),
            Ok(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Err(error) => Err(refused(&error).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Decides which TLS alert the endpoint gets, from which its owner learns what is wrong.
fn refused(error: &X509SvidError) -> CertificateError {
    match error {
        X509SvidError::Expired => CertificateError::Expired,
        X509SvidError::NotYetValid => CertificateError::NotValidYet,
        X509SvidError::Empty
        | X509SvidError::TooLong { .. }
        | X509SvidError::Malformed { .. }
        | X509SvidError::UriNames { .. }
        | X509SvidError::Id(_)
        | X509SvidError::IdWithoutPath { .. }
        | X509SvidError::NamesNotCritical
        | X509SvidError::LeafIsCa
        | X509SvidError::KeyUsage
        | X509SvidError::ExtendedKeyUsage => CertificateError::BadEncoding,
        X509SvidError::UntrustedDomain(_)
        | X509SvidError::NoAuthority(_)
        | X509SvidError::Path { .. }
        | X509SvidError::Intermediate(_) => CertificateError::UnknownIssuer,
    }
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
