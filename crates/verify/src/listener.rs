//! A listener that hands out authenticated connections.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{Authenticated, PeerError, PeerIdentity, refusal_log::RefusalLog};

/// An authenticated connection of a caller.
pub type MtlsStream = Authenticated<TlsStream<TcpStream>>;

/// Handshakes that are in progress at once. Beyond, the oldest is ended: connections that say nothing make room for those that do.
const MAX_HANDSHAKES: usize = 256;

/// For a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// After an error of the operating system, such as that there are too many open files.
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// Accepts connections over TCP and authenticates their callers, many at a time. A caller that is refused is logged, at most once a
/// second, and gets nothing but a TLS alert. A handshake may take five seconds; when more than 256 are in progress, the oldest is
/// ended.
#[derive(Debug)]
pub struct MtlsListener {
    tcp: TcpListener,
    config: Arc<ServerConfig>,
    handshakes: JoinSet<Handshake>,
    /// Oldest first, some of them done.
    order: VecDeque<AbortHandle>,
    refusals: RefusalLog,
}

/// How a handshake ended.
enum Handshake {
    Done(Box<MtlsStream>, SocketAddr),
    Refused(PeerError, SocketAddr),
    /// The configuration asks for no certificate.
    Unauthenticated,
    Failed,
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
        Self {
            tcp,
            config: Arc::new(config),
            handshakes: JoinSet::new(),
            order: VecDeque::new(),
            refusals: RefusalLog::default(),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next authenticated connection, with the caller's address. Nothing is lost when the future is dropped.
    pub async fn accept(&mut self) -> (MtlsStream, SocketAddr) {
        loop {
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Handshake::Done(stream, address)) => return (*stream, address),
                    Ok(Handshake::Refused(error, address)) => {
                        if let Some(left_out) = self.refusals.next(Instant::now()) {
                            tracing::info!(%address, %error, left_out, "a caller was refused");
                        }
                    }
                    Ok(Handshake::Unauthenticated) => tracing::warn!(
                        "the configuration of this listener asks callers for no certificate: all connections are refused"
                    ),
                    Ok(Handshake::Failed) => {}
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => tracing::error!(%error, "a handshake panicked"),
                },
                incoming = self.tcp.accept() => match incoming {
                    Ok((stream, address)) => self.begin(stream, address),
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        sleep(AFTER_ERROR).await;
                    }
                },
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, address: SocketAddr) {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        self.order.retain(|handshake| !handshake.is_finished());
        if self.order.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        self.order.push_back(self.handshakes.spawn(handshake(acceptor, stream, address)));
    }
}

/// The client gave up before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, address: SocketAddr) -> Handshake {
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => match PeerIdentity::of(stream.get_ref().1) {
            Some(identity) => Handshake::Done(Box::new(Authenticated::new(stream, identity)), address),
            None => Handshake::Unauthenticated,
        },
        Ok(Err(error)) => match PeerError::within(&error) {
            Some(refused) => Handshake::Refused(refused.clone(), address),
            None => {
                tracing::debug!(%address, %error, "a handshake failed");
                Handshake::Failed
            }
        },
        Err(_) => {
            tracing::debug!(%address, "a handshake took too long");
            Handshake::Failed
        }
    }
}

#[cfg(feature = "tonic")]
impl MtlsListener {
    /// The authenticated connections, one after the other, for `serve_with_incoming` of tonic: its requests then have the caller's
    /// [`PeerIdentity`] among their extensions.
    pub fn incoming(self) -> impl futures::Stream<Item = io::Result<MtlsStream>> {
        futures::stream::unfold(self, async |mut listener| {
            let (stream, _) = listener.accept().await;
            Some((Ok(stream), listener))
        })
    }
}

#[cfg(feature = "axum")]
impl axum::serve::Listener for MtlsListener {
    type Io = MtlsStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Self::local_addr(self)
    }
}

#[cfg(feature = "axum")]
impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, MtlsListener>> for PeerIdentity {
    fn connect_info(stream: axum::serve::IncomingStream<'_, MtlsListener>) -> Self {
        stream.io().peer().clone()
    }
}
