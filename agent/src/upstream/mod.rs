//! The connection to the issuer: TLS 1.3, pinned to the control plane's roots, shared by all sessions.

mod http2;
mod roots;

use std::io;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use countersign_proto::issuer::v1::issuer_client::IssuerClient;
use http::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

pub use http2::Http2;
pub use roots::{ControlPlaneRoots, RootsError};

/// TCP, TLS and the HTTP/2 preface together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a dead connection is noticed, together with [`KEEP_ALIVE_TIMEOUT`].
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A State may carry several bundles of up to 1 MiB each.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Why the issuer cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No TCP connection.
    #[error(
        "cannot connect to the issuer at {address}: {source}; is the operator running, and does a NetworkPolicy let the pod reach it?"
    )]
    Connect {
        /// As configured.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The server's certificate is not the issuer's, or not signed by one of this agent's roots.
    #[error(
        "no TLS with the issuer at {address}: {source}; a pod older than two rotations of the control plane's roots must be restarted"
    )]
    Tls {
        /// As configured.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The HTTP/2 handshake failed.
    #[error("no HTTP/2 with the issuer at {address}: {source}")]
    Http2 {
        /// As configured.
        address: String,
        /// Why not.
        source: hyper::Error,
    },
    /// The connection was not established in time.
    #[error("no connection to the issuer at {address} within {CONNECT_TIMEOUT:?}")]
    Timeout {
        /// As configured.
        address: String,
    },
    /// The name or the roots cannot be used for TLS.
    #[error("the control plane's roots cannot be used: {0}")]
    Configuration(#[from] rustls::Error),
}

/// The issuer's address, and the connection that stands.
#[derive(Debug)]
pub struct Upstream {
    address: String,
    name: ServerName<'static>,
    origin: Uri,
    roots: Lock<ControlPlaneRoots>,
    current: Mutex<Option<Connection>>,
}

/// One connection; clones are of the same.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Http2>);

impl Connection {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many clones there are: one of each session that uses it, and one of the [`Upstream`].
    fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl Upstream {
    /// Connects at the first request for a client.
    pub fn new(address: String, name: ServerName<'static>, roots: ControlPlaneRoots) -> Self {
        let origin =
            format!("https://{}", name.to_str()).parse().unwrap_or_else(|_| Uri::from_static("https://issuer"));
        Self { address, name, origin, roots: Lock::new(roots), current: Mutex::new(None) }
    }

    /// A client on the current connection, or on a new one when that has ended.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn client(&self) -> Result<IssuerClient<Http2>, UpstreamError> {
        self.client_with_connection().await.map(|(client, _)| client)
    }

    /// As [`Self::client`], with the connection.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub(crate) async fn client_with_connection(&self) -> Result<(IssuerClient<Http2>, Connection), UpstreamError> {
        let mut current = self.current.lock().await;
        let connection = match current.as_ref().filter(|connection| !connection.0.is_closed()) {
            Some(connection) => connection.clone(),
            None => {
                let http2 = tokio::time::timeout(CONNECT_TIMEOUT, self.connect())
                    .await
                    .map_err(|_| UpstreamError::Timeout { address: self.address.clone() })??;
                Connection(Arc::new(http2))
            }
        };
        *current = Some(connection.clone());
        let client = IssuerClient::with_origin(Http2::clone(&connection.0), self.origin.clone());
        Ok((client.max_decoding_message_size(MAX_MESSAGE), connection))
    }

    /// No longer hands out a connection that does not answer, or whose replica of the issuer cannot serve: the next client
    /// gets a new connection, and with it perhaps another replica. Sessions that use the old one keep it; a newer current
    /// connection stays.
    pub(crate) async fn discard(&self, connection: &Connection) {
        let mut current = self.current.lock().await;
        current.take_if(|current| current.is(connection));
    }

    /// As [`Self::discard`], unless another session uses the connection: the issuer refused the caller's session, and the
    /// others are served.
    pub(crate) async fn discard_unless_shared(&self, connection: &Connection) {
        let mut current = self.current.lock().await;
        // The current one's handle and the caller's.
        current.take_if(|current| current.is(connection) && current.handles() <= 2);
    }

    /// From the next connection on trusts `pushed` (DER) beside the roots of the pod's own spec, also after a restart.
    ///
    /// # Errors
    /// When they are not certificates, or cannot be stored; in the latter case they are trusted until the process ends.
    pub fn set_pushed_roots(&self, pushed: &[Vec<u8>]) -> Result<(), RootsError> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).set_pushed(pushed)
    }

    async fn connect(&self) -> Result<Http2, UpstreamError> {
        let address = || self.address.clone();
        let connector = TlsConnector::from(Arc::new(self.tls()?));
        let tcp = dial(&self.address).await.map_err(|source| UpstreamError::Connect { address: address(), source })?;
        let tls = connector
            .connect(self.name.clone(), tcp)
            .await
            .map_err(|source| UpstreamError::Tls { address: address(), source })?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|source| UpstreamError::Http2 { address: address(), source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the issuer ended");
            }
        });
        Ok(Http2::new(sender))
    }

    fn tls(&self) -> Result<ClientConfig, rustls::Error> {
        let mut store = RootCertStore::empty();
        let roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner).all();
        store.add_parsable_certificates(roots.into_iter().map(CertificateDer::from));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// A numeric address, which injection sets, needs no resolver and no thread for it.
async fn dial(address: &str) -> io::Result<TcpStream> {
    let stream = match address.parse::<std::net::SocketAddr>() {
        Ok(address) => TcpStream::connect(address).await?,
        Err(_) => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
