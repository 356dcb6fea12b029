//! Both ends of TLS with a harness: a probe of its X.509 port, and a server for it to call. Neither verifies the harness's
//! certificate, only that it has the key: what it presents is for the case to judge.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::authority::Svid;
use super::control::Decision;
use super::failure::{Failure, Verdict};

/// Of one connection.
const LIMIT: Duration = Duration::from_secs(20);

/// What one connection to an X.509 port showed.
#[derive(Debug)]
pub(crate) struct Probe {
    /// What the harness presented, leaf first, DER; empty if the handshake failed before.
    pub(crate) chain: Vec<Vec<u8>>,
    /// What it decided about our certificate.
    pub(crate) decision: Decision,
}

impl Probe {
    /// The leaf that was presented.
    pub(crate) fn leaf(&self) -> Option<&[u8]> {
        self.chain.first().map(Vec::as_slice)
    }

    /// The URIs in the presented leaf.
    pub(crate) fn ids(&self) -> Vec<String> {
        let Some(leaf) = self.leaf() else { return Vec::new() };
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return Vec::new() };
        let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
        let uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        uris.collect()
    }

    /// Whether the harness accepted us and presented this identity.
    pub(crate) fn serves(&self, id: &str) -> bool {
        matches!(self.decision, Decision::Accepted(_)) && self.ids() == [id]
    }
}

/// Connects to an X.509 port with this certificate. The harness accepted it only if it says whom it saw: under TLS 1.3 a
/// client's handshake ends before the server has looked at its certificate.
pub(crate) async fn probe(port: u16, own: &Svid) -> Verdict<Probe> {
    let verifier = Arc::new(Presented::default());
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(own)?)));
    let stream = TcpStream::connect(("127.0.0.1", port)).await.context("the X.509 port")?;
    let name = ServerName::try_from("harness")?;
    let talk = async {
        let connection = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let mut line = String::new();
        BufReader::new(connection).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line)
    };
    let said = timeout(LIMIT, talk).await.context("the X.509 port: neither an answer nor an end")?;
    let chain = verifier.0.lock().clone();
    let decision = match said {
        Ok(line) if line.trim_end() == "-" => {
            return Err(Failure::Skip("the client authenticates no peers".to_owned()));
        }
        Ok(line) if line.ends_with('\n') && !line.trim_end().is_empty() => {
            Decision::Accepted(line.trim_end().to_owned())
        }
        Ok(_) => Decision::Rejected("closed".to_owned()),
        Err(error) => Decision::Rejected(error.to_string()),
    };
    Ok(Probe { chain, decision })
}

/// A server for one harness to call, until this is dropped.
pub(crate) struct PeerServer {
    pub(crate) address: String,
    task: JoinHandle<()>,
}

impl PeerServer {
    /// Presents this certificate, and takes any in return.
    pub(crate) async fn start(own: &Svid) -> anyhow::Result<Self> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(Presented::default()))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified(own)?)));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut connection) = acceptor.accept(stream).await {
                    // A harness may listen for what a server says. How it ends the connection is its own affair.
                    let _ = connection.shutdown().await;
                    let _ = connection.read_to_end(&mut Vec::new()).await;
                }
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Without the checks of rustls: what is presented may be wrong.
fn certified(svid: &Svid) -> anyhow::Result<CertifiedKey> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.clone()));
    let key = provider().key_provider.load_private_key(key)?;
    Ok(CertifiedKey::new(svid.chain.iter().cloned().map(CertificateDer::from).collect(), key))
}

/// Keeps what the other end presented.
#[derive(Debug, Default)]
struct Presented(Mutex<Vec<Vec<u8>>>);

impl Presented {
    fn keep(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) {
        *self.0.lock() = std::iter::once(leaf).chain(others).map(|certificate| certificate.to_vec()).collect();
    }
}

impl ServerCertVerifier for Presented {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.keep(leaf, others);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Presented {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.keep(leaf, others);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
