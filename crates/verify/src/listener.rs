//! A listener that hands out connections whose callers are known.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{Authenticated, PeerError, PeerIdentity};

/// A connection of a caller that is known.
pub type MtlsStream = Authenticated<TlsStream<TcpStream>>;

/// Handshakes that are under way at once. Beyond, callers wait in the queue of the operating system.
const MAX_HANDSHAKES: usize = 256;

/// For a handshake: whoever takes longer holds one of the places above.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// After an error of the operating system, such as that there are too many open files.
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// Accepts connections over TCP and authenticates their callers; a slow handshake keeps nobody else waiting. A caller that is refused
/// is logged and gets nothing but a TLS alert.
#[derive(Debug)]
pub struct MtlsListener {
    tcp: TcpListener,
    config: Arc<ServerConfig>,
    handshakes: JoinSet<Option<(MtlsStream, SocketAddr)>>,
}

impl MtlsListener {
    /// Listens at `address`, with a configuration such as `Source::mtls_server_config` makes. Without protocols in the
    /// configuration (RFC 7301), HTTP/2 and HTTP/1.1 are offered.
    ///
    /// # Errors
    /// When nothing can listen there.
    pub async fn bind(address: impl ToSocketAddrs, config: ServerConfig) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?, config))
    }

    /// As [`Self::bind`], on a socket that listens already.
    #[must_use]
    pub fn new(tcp: TcpListener, mut config: ServerConfig) -> Self {
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        Self { tcp, config: Arc::new(config), handshakes: JoinSet::new() }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next caller that is known. Nothing is lost when the future is dropped.
    pub async fn accept(&mut self) -> (MtlsStream, SocketAddr) {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = done {
                        return accepted;
                    }
                }
                incoming = self.tcp.accept(), if self.handshakes.len() < MAX_HANDSHAKES => match incoming {
                    Ok((stream, address)) => {
                        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
                        self.handshakes.spawn(handshake(acceptor, stream, address));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        sleep(AFTER_ERROR).await;
                    }
                },
            }
        }
    }
}

#[cfg(feature = "tonic")]
impl MtlsListener {
    /// The callers that are known, one after the other, for `serve_with_incoming` of tonic: its requests then have the caller's
    /// [`PeerIdentity`] among their extensions.
    pub fn incoming(self) -> impl futures::Stream<Item = io::Result<MtlsStream>> {
        futures::stream::unfold(self, async |mut listener| {
            let (stream, _) = listener.accept().await;
            Some((Ok(stream), listener))
        })
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, address: SocketAddr) -> Option<(MtlsStream, SocketAddr)> {
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let Some(identity) = PeerIdentity::of(stream.get_ref().1) else {
                tracing::warn!(%address, "the configuration of this listener asks callers for no certificate: nobody is let in");
                return None;
            };
            Some((Authenticated::new(stream, identity), address))
        }
        Ok(Err(error)) => {
            match PeerError::within(&error) {
                Some(refused) => tracing::info!(%address, error = %refused, "a caller was refused"),
                None => tracing::debug!(%address, %error, "a handshake failed"),
            }
            None
        }
        Err(_) => {
            tracing::debug!(%address, "a handshake took too long");
            None
        }
    }
}

#[cfg(feature = "axum")]
impl axum::serve::Listener for MtlsListener {
    type Io = MtlsStream;
    type Addr = PeerIdentity;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, _) = Self::accept(self).await;
        let peer = stream.peer().clone();
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a listener has no identity of a peer; see MtlsListener::local_addr",
        ))
    }
}

#[cfg(feature = "axum")]
impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, MtlsListener>> for PeerIdentity {
    fn connect_info(stream: axum::serve::IncomingStream<'_, MtlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}
