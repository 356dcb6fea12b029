//! mTLS between SPIFFE identities: TLS 1.3 with full handshakes only.
//!
//! Every handshake takes one snapshot of the source, identity and trust together. (`spiffe-rustls` converts updates in a task
//! of its own and fails handshakes that fall between; a count of failed handshakes would then measure that package.)

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use parking_lot::Mutex;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use spiffe::{SpiffeId, X509BundleSet, X509Context, X509Source};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::report::Handshake;

/// Creates TLS configurations from a source, one pair for each of its revisions.
pub(crate) struct Tls {
    source: X509Source,
    /// The allowed peers.
    allowed: Vec<SpiffeId>,
    made: Mutex<Option<(u64, Arc<Configs>)>>,
}

/// The configurations of one snapshot of the source.
pub(crate) struct Configs {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    leaf: Leaf,
}

/// The reported fields of a certificate.
struct Leaf {
    id: String,
    serial: String,
    issuer: String,
    not_after: String,
}

impl Tls {
    /// Waits for the first identity.
    pub(crate) async fn new(allowed: Vec<SpiffeId>) -> Result<Self> {
        let source = X509Source::new().await.context("get an X509-SVID from the Workload API")?;
        Ok(Self { source, allowed, made: Mutex::default() })
    }

    /// The current configurations.
    pub(crate) fn now(&self) -> Result<Arc<Configs>> {
        let state = self.source.state();
        let mut made = self.made.lock();
        if let Some((revision, configs)) = &*made
            && *revision == state.revision()
        {
            return Ok(configs.clone());
        }
        let context = state.context().context("the identity was withdrawn")?;
        let configs = Arc::new(configs(&context, &self.allowed)?);
        *made = Some((state.revision(), configs.clone()));
        Ok(configs)
    }
}

impl Configs {
    /// The report of a handshake with this peer.
    pub(crate) fn handshake(&self, peer: Option<&[CertificateDer<'_>]>) -> Result<Handshake> {
        let peer = peer.and_then(<[_]>::first).context("the peer showed no certificate")?;
        let peer = Leaf::parse(peer)?;
        Ok(Handshake {
            local: self.leaf.id.clone(),
            peer: peer.id,
            serial: self.leaf.serial.clone(),
            peer_serial: peer.serial,
            issuer: self.leaf.issuer.clone(),
            not_after: self.leaf.not_after.clone(),
            key_id: None,
        })
    }
}

impl Leaf {
    fn parse(der: &[u8]) -> Result<Self> {
        let id = spiffe::cert::spiffe_id_from_der(der).context("read the SPIFFE ID of a certificate")?;
        let (_, parsed) = X509Certificate::from_der(der).context("read a certificate")?;
        let not_after = jiff::Timestamp::from_second(parsed.validity().not_after.timestamp())?;
        Ok(Self {
            id: id.to_string(),
            serial: format!("{:x}", parsed.serial),
            issuer: parsed.issuer().to_string(),
            not_after: not_after.to_string(),
        })
    }
}

fn configs(context: &X509Context, allowed: &[SpiffeId]) -> Result<Configs> {
    let svid = context.default_svid().context("no X509-SVID")?;
    let chain: Vec<_> =
        svid.cert_chain().iter().map(|certificate| CertificateDer::from(certificate.as_bytes().to_vec())).collect();
    let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));

    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier {
        trust: context.bundle_set().clone(),
        allowed: allowed.to_vec(),
        provider: provider.clone(),
    });

    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_auth_cert(chain.clone(), key())?;
    client.resumption = Resumption::disabled();
    client.enable_sni = false;

    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key())?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let leaf = Leaf::parse(svid.leaf().as_bytes())?;
    Ok(Configs { client: Arc::new(client), server: Arc::new(server), leaf })
}

/// Accepts a peer whose chain ends in the bundle of its own trust domain, and whose id is allowed.
#[derive(Debug)]
struct Verifier {
    trust: Arc<X509BundleSet>,
    allowed: Vec<SpiffeId>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let id = spiffe::cert::spiffe_id_from_der(leaf).map_err(refused)?;
        let bundle = self
            .trust
            .get_ref(id.trust_domain())
            .ok_or_else(|| refused(anyhow!("no bundle of the trust domain {}", id.trust_domain())))?;
        let roots: Vec<_> =
            bundle.authorities().iter().map(|authority| CertificateDer::from(authority.as_bytes())).collect();
        let anchors = roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>().map_err(refused)?;
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                let algorithms = self.provider.signature_verification_algorithms.all;
                leaf.verify_for_usage(algorithms, &anchors, rest, now, usage, None, None).map(drop)
            })
            .map_err(refused)?;
        if !self.allowed.contains(&id) {
            return Err(refused(anyhow!("{id} is not among those allowed")));
        }
        Ok(())
    }

    fn signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, rest, now, KeyUsage::server_auth()).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, rest, now, KeyUsage::client_auth()).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refused(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::from(why.into()))))
}
