//! HTTP servers within limits of connections, with TLS and without.

use std::{sync::Arc, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::connection;
use crate::connections::{
    ConnectionLimiter, ConnectionLimits, ConnectionMetrics, Peer, ReadRate, accept, next_admitted,
};

/// What the peers of an HTTP server may use.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Connections. The limits of those that have not authenticated apply to all, unless a handler authenticates the [`Peer`].
    pub connections: ConnectionLimits,
    /// How long a connection may be without a request whose head has arrived.
    pub idle: Duration,
    /// How fast a connection is read.
    pub read_rate: ReadRate,
    /// Requests at the same time on one HTTP/2 connection.
    pub streams: u32,
    /// Timeout for the requests in flight at shutdown.
    pub shutdown: Duration,
}

/// Serves HTTP/1.1 and HTTP/2 over TLS until `shutdown`; returns when every connection has ended.
pub async fn serve_https(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    limits: HttpLimits,
    metrics: ConnectionMetrics,
    shutdown: CancellationToken,
) {
    let (ready, mut incoming) = mpsc::channel(64);
    let closed = shutdown.clone().cancelled_owned();
    tokio::spawn(accept(listener, tls, limits.connections, metrics, closed, ready));
    let open = TaskTracker::new();
    // Ends when the listener is closed and no handshake is left.
    while let Some(connection) = incoming.recv().await {
        let peer = connection.peer().clone();
        open.spawn(connection::serve(connection, peer, router.clone(), limits, shutdown.clone()));
    }
    open.close();
    open.wait().await;
}

/// Serves HTTP/1.1 and HTTP/2 without TLS until `shutdown`; returns when every connection has ended.
pub async fn serve_http(listener: TcpListener, router: Router, limits: HttpLimits, shutdown: CancellationToken) {
    let limiter = ConnectionLimiter::new(limits.connections, ConnectionMetrics::default());
    let open = TaskTracker::new();
    let mut closed = std::pin::pin!(shutdown.cancelled());
    while let Some((stream, address, permit)) = next_admitted(&listener, &limiter, closed.as_mut()).await {
        let peer = Peer::new(address, permit);
        open.spawn(connection::serve(stream, peer, router.clone(), limits, shutdown.clone()));
    }
    drop(listener);
    open.close();
    open.wait().await;
}

#[cfg(test)]
mod tests;
