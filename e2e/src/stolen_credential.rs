//! A copy of a workload's credential, presented to servers from outside of its pod.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    version::TLS13,
};
use serde_json::Value;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{credential::Credential, wait::DEFAULT_TIMEOUT};

/// A server's answer to a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was accepted; the id that the server saw.
    Accepted(String),
    /// It was refused with this alert.
    Refused(String),
}

impl Credential {
    /// Presents the credential to a server that answers with a JSON line that names the `peer`. Whoever holds a copy does
    /// not care who the server is.
    ///
    /// # Errors
    /// The server cannot be reached, or neither accepts nor refuses.
    pub async fn present(&self, target: &str) -> Result<Answer> {
        timeout(DEFAULT_TIMEOUT, self.shake_hands(target)).await.with_context(|| format!("{target} does not answer"))?
    }

    async fn shake_hands(&self, target: &str) -> Result<Answer> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from_pem_slice(&self.pem).context("the credential's key")?;
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_client_auth_cert(self.chain.clone(), key)?;
        config.enable_sni = false;
        let stream = TcpStream::connect(target).await.with_context(|| format!("connect to {target}"))?;
        let name = ServerName::try_from("spiffe.invalid")?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("shake hands")?;
        // In TLS 1.3 a client learns only with the first answer whether its certificate was accepted.
        let mut line = Vec::new();
        if let Err(error) = stream.read_to_end(&mut line).await {
            return match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(Error::AlertReceived(alert)) => Ok(Answer::Refused(format!("{alert:?}"))),
                // An answer came; the server ended the connection without the alert that announces it.
                _ if !line.is_empty() => accepted(&line),
                _ => Err(error).with_context(|| format!("read the answer of {target}")),
            };
        }
        accepted(&line)
    }
}

fn accepted(line: &[u8]) -> Result<Answer> {
    let answer: Value = serde_json::from_slice(line).context("the answer is no JSON")?;
    match answer.get("peer").and_then(Value::as_str) {
        Some(peer) => Ok(Answer::Accepted(peer.to_owned())),
        None => bail!("the answer names no peer: {answer}"),
    }
}

/// Accepts every server.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
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
        verify_tls13_signature(message, leaf, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
