//! The admission port: TLS 1.3 with the stored certificate, within limits of connections.

use std::{sync::Arc, time::Duration};

use countersign_runtime::{
    connections::{ConnectionLimits, ReadRate},
    http::{HttpLimits, serve_https},
    tls::{ServingCertificate, server_config},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server::{self, App};

/// The limits of the port (`docs/adr/0027-admission-connections.md`). API servers call webhooks by HTTP/1.1: each call in flight has
/// a connection of its own, and some of these stay for later calls. Nothing on a connection proves that its peer is an API server,
/// so none is exempt from eviction, except while its request is answered. Thus a new connection finds a place unless all others
/// are being answered, and an address beyond its share evicts its own connections. The numbers keep connections, and the ordinary
/// reviews that arrive on them, within the container's memory.
pub const LIMITS: HttpLimits = HttpLimits {
    connections: ConnectionLimits {
        // One of the two threads is for admission.
        handshakes: 1,
        handshake_time: Duration::from_secs(5),
        // All API servers share an address where their calls pass through a proxy.
        waiting_per_address: 384,
        waiting: 768,
        per_address: 384,
        total: 768,
    },
    // API servers close a connection that was idle for 90 s. Where the server closes it first, a call may fail.
    idle: Duration::from_secs(120),
    // A review that is too long is received to its end, up to 64 MiB, within the 5 s that API servers wait.
    read_rate: ReadRate { bytes_per_second: 16 * 1024 * 1024, burst: 80 * 1024 * 1024 },
    // As with HTTP/1.1, so that the number of connections bounds the reviews that arrive at the same time.
    streams: 1,
    // API servers wait 5 s for a webhook.
    shutdown: Duration::from_secs(6),
};

/// Serves admission until `shutdown`, and then until the requests in flight are answered.
///
/// # Errors
/// When the TLS provider lacks TLS 1.3.
pub async fn serve(
    listener: TcpListener,
    certificate: Arc<ServingCertificate>,
    app: Arc<App>,
    limits: HttpLimits,
    shutdown: CancellationToken,
) -> Result<(), rustls::Error> {
    let (tls, metrics) = (tls_config(certificate)?, app.metrics.connections());
    serve_https(listener, tls, server::admission(app), limits, metrics, shutdown).await;
    Ok(())
}

fn tls_config(certificate: Arc<ServingCertificate>) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    server_config(certificate, &[b"h2", b"http/1.1"])
}

#[cfg(test)]
mod tests;
