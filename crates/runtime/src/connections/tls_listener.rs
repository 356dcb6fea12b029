//! Accepts TLS connections over TCP: each handshake within a time, within the limits of connections ([`ConnectionLimiter`]) and of
//! handshakes that compute at the same time ([`HandshakeLimiter`]).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::{
    ConnectionLimiter, ConnectionLimits, ConnectionMetrics, ConnectionPermit, EvictionGuard,
    handshake_limiter::HandshakeLimiter, next_admitted,
};

/// Accepts, shakes hands and hands connections over until `closed` resolves.
pub async fn accept(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    limits: ConnectionLimits,
    metrics: ConnectionMetrics,
    closed: impl Future<Output = ()>,
    ready: mpsc::Sender<Connection>,
) {
    let (limiter, handshakes) =
        (ConnectionLimiter::new(limits, metrics.clone()), HandshakeLimiter::new(limits.handshakes));
    let mut closed = std::pin::pin!(closed);
    while let Some((stream, peer, permit)) = next_admitted(&listener, &limiter, closed.as_mut()).await {
        let (tls, handshakes, ready, metrics) = (tls.clone(), handshakes.clone(), ready.clone(), metrics.clone());
        tokio::spawn(async move {
            let shaken = tokio::select! {
                biased;
                () = permit.evicted() => return,
                shaken = tokio::time::timeout(limits.handshake_time, shake_hands(tls, stream, &permit, handshakes)) => shaken,
            };
            match shaken {
                Ok(Ok(stream)) => {
                    // A send fails only while the server shuts down; the connection then simply closes.
                    let _ = ready.send(Connection { stream, peer: Peer::new(peer, permit) }).await;
                }
                Ok(Err(error)) => {
                    metrics.handshakes_failed.inc();
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                }
                Err(_) => {
                    metrics.handshakes_failed.inc();
                    tracing::debug!(%peer, limit = ?limits.handshake_time, "TLS handshake took too long");
                }
            }
        });
    }
}

/// Reads the peer's first message, waits for a turn to compute the answer to it, and reads on: only what computes counts.
async fn shake_hands(
    tls: Arc<rustls::ServerConfig>,
    stream: TcpStream,
    permit: &ConnectionPermit,
    handshakes: HandshakeLimiter,
) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let guard = permit.guard_from_eviction();
    let computing = handshakes.acquire(permit.address()).await;
    let mut answering = hello.into_stream(tls);
    // The first poll agrees on a key and signs; all that comes after it is cheap.
    let answered = futures::poll!(&mut answering);
    drop((computing, guard));
    match answered {
        Poll::Ready(stream) => stream,
        Poll::Pending => answering.await,
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connection {
    /// From where it came.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// From where a request came, and its connection's place among all.
#[derive(Clone, Debug)]
pub struct Peer {
    address: SocketAddr,
    permit: Arc<ConnectionPermit>,
}

impl Peer {
    /// Of a connection from `address` that holds `permit`.
    #[must_use]
    pub fn new(address: SocketAddr, permit: ConnectionPermit) -> Self {
        Self { address, permit: Arc::new(permit) }
    }

    /// The peer's address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address.ip()
    }

    /// See [`ConnectionPermit::evicted`].
    pub async fn evicted(&self) {
        self.permit.evicted().await;
    }

    /// See [`ConnectionPermit::guard_from_eviction`].
    #[must_use]
    pub fn guard_from_eviction(&self) -> EvictionGuard<'_> {
        self.permit.guard_from_eviction()
    }

    /// See [`ConnectionPermit::mark_authenticated`].
    pub fn mark_authenticated(&self) {
        self.permit.mark_authenticated();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What [`accept`] hands over, as the stream tonic takes.
pub fn incoming(ready: mpsc::Receiver<Connection>) -> impl Stream<Item = io::Result<Connection>> {
    futures::StreamExt::map(tokio_stream::wrappers::ReceiverStream::new(ready), Ok)
}

#[cfg(test)]
mod tests {
    use super::{Connection, ConnectionLimits, accept};
    use crate::connections::ConnectionMetrics;
    use std::{net::Ipv4Addr, sync::Arc, time::Duration};
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
        sync::mpsc,
        time::Instant,
    };

    async fn listening(limits: ConnectionLimits) -> (std::net::SocketAddr, mpsc::Receiver<Connection>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = crate::tls::server_config(Arc::default(), &[b"h2"]).unwrap();
        let (ready, connections) = mpsc::channel(1);
        tokio::spawn(accept(listener, tls, limits, ConnectionMetrics::default(), std::future::pending(), ready));
        (address, connections)
    }

    // Who says nothing is not waited for.
    #[tokio::test]
    async fn a_handshake_that_takes_too_long_is_broken_off() {
        let limits = ConnectionLimits { handshake_time: Duration::from_millis(20), ..ConnectionLimits::default() };
        let (address, _connections) = listening(limits).await;
        let mut peer = TcpStream::connect(address).await.unwrap();
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
    }

    // R87
    #[tokio::test(start_paused = true)]
    async fn a_handshake_may_take_five_seconds_where_nothing_else_is_said() {
        let (address, _connections) = listening(ConnectionLimits::default()).await;
        let mut peer = TcpStream::connect(address).await.unwrap();
        let begin = Instant::now();
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
        assert!((5_000..5_100).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn the_connection_that_waited_longest_makes_room_for_the_newest_of_its_address() {
        let limits = ConnectionLimits { waiting_per_address: 1, ..ConnectionLimits::default() };
        let (address, _connections) = listening(limits).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        assert_eq!(first.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}
