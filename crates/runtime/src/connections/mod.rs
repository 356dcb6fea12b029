//! TCP connections from peers that may be hostile: how many there may be, how many handshakes compute at a time, and how fast a
//! connection is read.

mod connection_limits;
mod handshake_limiter;
mod tcp_listener;
mod throttled_io;
mod tls_listener;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

pub use connection_limits::{ConnectionLimiter, ConnectionLimits, ConnectionPermit, EvictionGuard};
pub(crate) use tcp_listener::next_admitted;
pub use throttled_io::{ReadRate, ThrottledIo};
pub use tls_listener::{Connection, Peer, accept, incoming};

/// The metrics of a listener.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    /// Open connections.
    pub open: Gauge,
    /// Connections that had authenticated nobody and were evicted for newer ones.
    pub evicted: Counter,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
}

impl ConnectionMetrics {
    /// Registers them; `listener` says in words what they are connected to.
    pub fn register(&self, registry: &mut Registry, listener: &str) {
        registry.register("connections", format!("Open connections to {listener}"), self.open.clone());
        registry.register(
            "connections_evicted",
            "Connections that had proven nothing and made room for newer ones",
            self.evicted.clone(),
        );
        registry.register("handshakes_failed", "TLS handshakes failed or too slow", self.handshakes_failed.clone());
    }
}
