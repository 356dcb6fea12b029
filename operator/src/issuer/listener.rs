//! The issuer's listener: TLS 1.3 without resumption over TCP, with a time limit on the handshake and caps on connections,
//! so that who has no token yet can hold little.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::metrics::Metrics;

/// What a peer may hold open.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Handshakes at the same time; further connections wait in the kernel's queue.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake_time: Duration,
    /// Connections from one address; pods on the host's network share their node's.
    pub per_address: usize,
    /// Connections in all.
    pub total: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { handshakes: 256, handshake_time: Duration::from_secs(5), per_address: 512, total: 100_000 }
    }
}

/// Accepts, shakes hands and hands connections over until `shutdown`.
pub async fn accept(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    ready: mpsc::Sender<Connection>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let census = Census::new(limits, metrics.clone());
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => return,
            permit = handshakes.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: give those who leave the time to.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(seat) = census.enter(peer.ip()) else { continue };
        let (acceptor, ready, metrics) = (acceptor.clone(), ready.clone(), metrics.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(limits.handshake_time, shake_hands(acceptor, stream)).await {
                Ok(Ok(stream)) => {
                    // A send fails only while the server shuts down; the connection then simply closes.
                    let _ = ready.send(Connection { stream, peer, _seat: seat }).await;
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

async fn shake_hands(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

/// Who is connected, by address.
#[derive(Clone, Debug)]
struct Census(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    by_address: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

impl Census {
    fn new(limits: ConnectionLimits, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Counts { limits, metrics, by_address: Mutex::default() }))
    }

    /// A seat, unless the address or all of them together hold as many as they may.
    fn enter(&self, address: IpAddr) -> Option<Seat> {
        let mut counts = self.0.by_address.lock();
        let (total, by_address) = &mut *counts;
        let here = by_address.get(&address).copied().unwrap_or(0);
        if *total >= self.0.limits.total || here >= self.0.limits.per_address {
            tracing::debug!(%address, here, total = *total, "connection refused: too many");
            return None;
        }
        by_address.insert(address, here + 1);
        *total += 1;
        self.0.metrics.connections.inc();
        Some(Seat { census: self.clone(), address })
    }
}

/// A place among the connections; given back when dropped.
#[derive(Debug)]
struct Seat {
    census: Census,
    address: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.census.0.by_address.lock();
        let (total, by_address) = &mut *counts;
        *total = total.saturating_sub(1);
        if let Some(here) = by_address.get_mut(&self.address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                by_address.remove(&self.address);
            }
        }
        self.census.0.metrics.connections.dec();
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    _seat: Seat,
}

/// From where a request came.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.peer)
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
    use super::{Census, Connection, ConnectionLimits, accept};
    use crate::metrics::Metrics;
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::Arc,
        time::Duration,
    };
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
        sync::mpsc,
    };
    use tokio_util::sync::CancellationToken;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[test]
    fn an_address_holds_at_most_its_share_and_gets_it_back() {
        let limits = ConnectionLimits { per_address: 2, ..ConnectionLimits::default() };
        let census = Census::new(limits, Arc::new(Metrics::new()));
        let first = census.enter(address(1));
        let second = census.enter(address(1));
        assert!(first.is_some() && second.is_some());
        assert!(census.enter(address(1)).is_none());
        assert!(census.enter(address(2)).is_some());
        drop(first);
        assert!(census.enter(address(1)).is_some());
    }

    #[test]
    fn all_addresses_together_hold_at_most_the_total() {
        let limits = ConnectionLimits { total: 2, ..ConnectionLimits::default() };
        let census = Census::new(limits, Arc::new(Metrics::new()));
        let seats = (census.enter(address(1)), census.enter(address(2)));
        assert!(census.enter(address(3)).is_none());
        drop(seats);
        assert!(census.0.by_address.lock().1.is_empty());
        assert!(census.enter(address(3)).is_some());
    }

    async fn listening(limits: ConnectionLimits) -> (std::net::SocketAddr, mpsc::Receiver<Connection>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = crate::issuer::serving::tls_config(Arc::default()).unwrap();
        let (ready, connections) = mpsc::channel(1);
        tokio::spawn(accept(listener, tls, limits, Arc::new(Metrics::new()), CancellationToken::new(), ready));
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

    #[tokio::test]
    async fn a_connection_beyond_the_addresss_share_is_closed_at_once() {
        let limits = ConnectionLimits { per_address: 1, ..ConnectionLimits::default() };
        let (address, _connections) = listening(limits).await;
        let _first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}
