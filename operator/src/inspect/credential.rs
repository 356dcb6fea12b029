//! By what replicas know each other: TLS 1.3 with a certificate on both sides, signed by the control plane's root, which
//! only replicas of the operator can reach, and named as they are. Kept fresh as roots and certificates change.

use std::{ops::Range, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use countersign_core::{
    key::{KeyError, KeyType, PrivateKey},
    renewal,
    x509::{IssueError, X509Authority},
};
use jiff::Timestamp;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{Resumption, danger::HandshakeSignatureValid, verify_server_name},
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, VerifierBuilderError,
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::sync::watch;

use countersign_issuer::published::Published;
use countersign_runtime::clock::Clock;

/// How long a replica's certificate lives.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Why a replica has nothing to show, or cannot check what it is shown.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The control plane's journal has not come yet.
    #[error("the control plane's root is not loaded yet")]
    NoRoot,
    /// No key could be made.
    #[error("the replica's key could not be made: {0}")]
    Key(#[from] KeyError),
    /// The control plane's root did not sign.
    #[error("the control plane's root did not sign the replica's certificate: {0}")]
    Issue(#[from] IssueError),
    /// The TLS library does not take it.
    #[error("the replica's certificate or the control plane's roots cannot be used: {0}")]
    Tls(#[from] Error),
    /// Nor the roots, for clients.
    #[error("the control plane's roots cannot be used: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// A replica's certificate and the roots by which it checks others'; empty until the control plane's root is there.
#[derive(Debug)]
pub struct Credential {
    name: ServerName<'static>,
    current: ArcSwapOption<Current>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    /// From its first moment to its renewal: a clock that was set back finds itself before it.
    good: Range<Timestamp>,
}

impl Credential {
    /// Of replicas that are named so ([`super::replica_name`]).
    #[must_use]
    pub fn new(name: ServerName<'static>) -> Arc<Self> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Arc::new(Self { name, current: ArcSwapOption::empty(), algorithms })
    }

    /// The name in every replica's certificate.
    #[must_use]
    pub fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// For the replica that is asked: a client must show a replica's certificate.
    ///
    /// # Errors
    /// When the provider does not support TLS 1.3.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, CredentialError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::clone(self) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// For the replica that asks.
    ///
    /// # Errors
    /// [`CredentialError::NoRoot`] before the control plane's root is there.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, CredentialError> {
        let current = self.current.load_full().ok_or(CredentialError::NoRoot)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&current.roots))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&current.key))));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Makes a certificate under what is published now.
    ///
    /// # Errors
    /// When there is no root, or it does not sign.
    pub fn renew(&self, published: &Published, now: Timestamp) -> Result<Timestamp, CredentialError> {
        let authority = published.control_plane.as_ref().ok_or(CredentialError::NoRoot)?;
        let (key, good) = certify(authority, &self.name.to_str(), now)?;
        let renew_at = good.end;
        let mut roots = RootCertStore::empty();
        for root in &published.control_plane_roots {
            roots.add(CertificateDer::from(root.clone()))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider).build()?;
        self.current.store(Some(Arc::new(Current { key: Arc::new(key), roots, clients, good })));
        Ok(renew_at)
    }

    /// Renews in time, and whenever the control plane's roots change, for as long as the process lives.
    pub async fn keep_fresh(self: Arc<Self>, mut published: watch::Receiver<Arc<Published>>, clock: Clock) {
        let mut known: Option<(Vec<u8>, Vec<Vec<u8>>)> = None;
        loop {
            let news = published.borrow_and_update().clone();
            let now = clock.now();
            let basis = news
                .control_plane
                .as_ref()
                .map(|authority| (authority.certificate().subject_key_id().to_vec(), news.control_plane_roots.clone()));
            let due = self.current.load().as_ref().is_none_or(|current| !current.good.contains(&now));
            let mut look_at = self.current.load().as_ref().map(|current| current.good.end);
            if basis.is_some() && (basis != known || due) {
                look_at = Some(match self.renew(&news, now) {
                    Ok(at) => {
                        known = basis;
                        at
                    }
                    Err(error) => {
                        tracing::error!(%error, "this replica has no certificate for the others; trying again");
                        now.saturating_add(RETRY).unwrap_or(now)
                    }
                });
            }
            tokio::select! {
                () = clock.draws_near(look_at.unwrap_or(Timestamp::MAX)), if look_at.is_some() => {}
                changed = published.changed() => if changed.is_err() { return },
            }
        }
    }
}

fn certify(
    authority: &X509Authority,
    name: &str,
    now: Timestamp,
) -> Result<(CertifiedKey, Range<Timestamp>), CredentialError> {
    let key = PrivateKey::generate(KeyType::EcP256)?;
    let issued = authority.issue_server(key.public_key(), &[name.to_owned()], LIFE, now)?;
    let chain = issued.chain.into_iter().map(CertificateDer::from).collect();
    // Borrowed: a copy would be wiped by nobody.
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().as_slice()));
    let signing = aws_lc_rs::sign::any_supported_type(&der)?;
    let renew_at = renewal::renew_at(issued.not_before, issued.not_after, rand::random_range(-1.0..=1.0));
    Ok((CertifiedKey::new(chain, signing), issued.not_before..renew_at))
}

impl ResolvesServerCert for Credential {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|current| Arc::clone(&current.key))
    }
}

impl ClientCertVerifier for Credential {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let current = self.current.load_full().ok_or(CertificateError::UnknownIssuer)?;
        let verified = current.clients.verify_client_cert(end_entity, intermediates, now)?;
        // The control plane's root signs for the issuer's name, too: that one asks nobody.
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
