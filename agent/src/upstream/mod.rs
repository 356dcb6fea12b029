//! The way to the issuer: one TLS 1.3 connection, pinned to the control plane's roots, shared by all sessions.

mod http2;
mod roots;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
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
pub use roots::{KeptRoots, RootsError};

/// TCP, TLS and the HTTP/2 preface together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a dead connection is noticed, beside [`KEEP_ALIVE_TIMEOUT`].
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
    /// The server is not the issuer, or not one this agent's roots vouch for.
    #[error(
        "no TLS with the issuer at {address}: {source}; a pod older than two rotations of the control plane's roots must be restarted"
    )]
    Tls {
        /// As configured.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// TLS stands, HTTP/2 does not.
    #[error("no HTTP/2 with the issuer at {address}: {source}")]
    Http2 {
        /// As configured.
        address: String,
        /// Why not.
        source: hyper::Error,
    },
    /// None of the above came to an end in time.
    #[error("no connection to the issuer at {address} within {CONNECT_TIMEOUT:?}")]
    Timeout {
        /// As configured.
        address: String,
    },
    /// The name or the roots make no TLS configuration.
    #[error("the control plane's roots cannot be used: {0}")]
    Configuration(#[from] rustls::Error),
}

/// The issuer, as far as this agent knows it.
#[derive(Debug)]
pub struct Upstream {
    address: String,
    name: ServerName<'static>,
    origin: Uri,
    roots: Lock<KeptRoots>,
    lines: AtomicU64,
    live: Mutex<Option<Line>>,
}

/// One connection; clones are of the same.
#[derive(Debug, Clone)]
pub struct Line {
    number: u64,
    http2: Http2,
}

impl Upstream {
    /// Connects when first asked.
    pub fn new(address: String, name: ServerName<'static>, roots: KeptRoots) -> Self {
        let origin =
            format!("https://{}", name.to_str()).parse().unwrap_or_else(|_| Uri::from_static("https://issuer"));
        Self { address, name, origin, roots: Lock::new(roots), lines: AtomicU64::new(0), live: Mutex::new(None) }
    }

    /// A client on the connection that stands, or on a new one.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn client(&self) -> Result<IssuerClient<Http2>, UpstreamError> {
        self.client_on_line().await.map(|(client, _)| client)
    }

    /// As [`Self::client`], with the connection.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn client_on_line(&self) -> Result<(IssuerClient<Http2>, Line), UpstreamError> {
        let mut live = self.live.lock().await;
        let line = match live.as_ref().filter(|line| !line.http2.is_closed()) {
            Some(line) => line.clone(),
            None => {
                let http2 = tokio::time::timeout(CONNECT_TIMEOUT, self.connect())
                    .await
                    .map_err(|_| UpstreamError::Timeout { address: self.address.clone() })??;
                Line { number: self.lines.fetch_add(1, Ordering::Relaxed), http2 }
            }
        };
        *live = Some(line.clone());
        let client = IssuerClient::with_origin(line.http2.clone(), self.origin.clone());
        Ok((client.max_decoding_message_size(MAX_MESSAGE), line))
    }

    /// Forgets a connection, which does not answer or leads to an issuer that goes: the next client gets a new one, and
    /// with it perhaps another replica. One that came after it stays.
    pub async fn discard(&self, line: &Line) {
        let mut live = self.live.lock().await;
        live.take_if(|live| live.number == line.number);
    }

    /// Trusts `pushed` (DER) beside the roots of the pod's own spec from the next connection on, also after a restart.
    ///
    /// # Errors
    /// When they cannot be kept; they are trusted all the same until the process ends.
    pub fn learn_roots(&self, pushed: &[Vec<u8>]) -> Result<(), RootsError> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).learn(pushed)
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

/// An address in figures, which injection gives, needs no resolver and no thread for it.
async fn dial(address: &str) -> io::Result<TcpStream> {
    let stream = match address.parse::<std::net::SocketAddr>() {
        Ok(address) => TcpStream::connect(address).await?,
        Err(_) => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
