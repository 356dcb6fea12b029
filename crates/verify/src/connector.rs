//! Connections of clients for HTTP and gRPC to servers that are known.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::{
    ClientConfig,
    pki_types::{InvalidDnsNameError, ServerName},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::Service;

use crate::{Authenticated, PeerError, PeerIdentity};

/// Connects to the host and port of a URI and authenticates the server. For clients of hyper (`hyper_util::client::legacy`), whose
/// responses then have the server's [`PeerIdentity`] among their extensions, and for channels of tonic
/// (`Endpoint::connect_with_connector`). The scheme of the URI must be `https`.
#[derive(Clone, Debug)]
pub struct MtlsConnector {
    config: Arc<ClientConfig>,
}

/// For a connection and its handshake.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MtlsConnectorError {
    /// The URI says so, and nothing is sent in the clear.
    #[error("the URI is not one of https")]
    NotHttps,
    /// Without a host.
    #[error("the URI has no host")]
    NoHost,
    /// The host is neither a DNS name nor an address.
    #[error("the host of the URI: {0}")]
    Host(#[from] InvalidDnsNameError),
    /// The server is not one that is accepted.
    #[error("{0}")]
    Peer(#[source] PeerError),
    /// The configuration is not one of this crate.
    #[error("the server's certificate has no SPIFFE ID: the connector's configuration does not ask for one")]
    NoIdentity,
    /// No connection and handshake within ten seconds.
    #[error("cannot connect within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// No connection, or no handshake.
    #[error("cannot connect: {0}")]
    Io(#[source] io::Error),
}

/// A connection to a server that is known.
pub type MtlsConnection = Authenticated<TlsStream<TcpStream>>;

impl MtlsConnector {
    /// With a configuration such as `Source::mtls_client_config` makes. Without protocols in it (RFC 7301), HTTP/2 and HTTP/1.1 are
    /// offered.
    #[must_use]
    pub fn new(mut config: ClientConfig) -> Self {
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        Self { config: Arc::new(config) }
    }

    async fn connect_in_time(self, uri: Uri) -> Result<TokioIo<MtlsConnection>, MtlsConnectorError> {
        timeout(TIMEOUT, self.connect(uri)).await.map_err(|_| MtlsConnectorError::Timeout)?
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<MtlsConnection>, MtlsConnectorError> {
        if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Err(MtlsConnectorError::NotHttps);
        }
        let host = uri.host().ok_or(MtlsConnectorError::NoHost)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await.map_err(MtlsConnectorError::Io)?;
        let _ = stream.set_nodelay(true);
        match TlsConnector::from(self.config).connect(name, stream).await {
            Ok(stream) => {
                let peer = PeerIdentity::of(stream.get_ref().1).ok_or(MtlsConnectorError::NoIdentity)?;
                Ok(TokioIo::new(Authenticated::new(stream, peer)))
            }
            Err(error) => Err(match PeerError::within(&error) {
                Some(refused) => MtlsConnectorError::Peer(refused.clone()),
                None => MtlsConnectorError::Io(error),
            }),
        }
    }
}

impl Service<Uri> for MtlsConnector {
    type Response = TokioIo<MtlsConnection>;
    type Error = MtlsConnectorError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect_in_time(uri))
    }
}

impl Connection for MtlsConnection {
    fn connected(&self) -> Connected {
        let is_http2 = self.get_ref().get_ref().1.alpn_protocol() == Some(b"h2");
        let connected = if is_http2 { Connected::new().negotiated_h2() } else { Connected::new() };
        connected.extra(self.peer().clone())
    }
}
