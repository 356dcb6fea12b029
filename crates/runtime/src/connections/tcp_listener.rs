//! Accepts TCP connections within the limits of connections ([`ConnectionLimiter`]).

use std::{net::SocketAddr, pin::Pin, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use super::{ConnectionLimiter, ConnectionPermit};

/// The next connection for which there is a place; `None` once `closed` resolves. Others are closed at once.
pub(crate) async fn next_admitted(
    listener: &TcpListener,
    limiter: &ConnectionLimiter,
    mut closed: Pin<&mut impl Future<Output = ()>>,
) -> Option<(TcpStream, SocketAddr, ConnectionPermit)> {
    loop {
        let accepted = tokio::select! {
            () = &mut closed => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match limiter.try_admit(peer.ip()) {
                Some(permit) => return Some((stream, peer, permit)),
                None => tracing::debug!(%peer, "connection refused: too many"),
            },
            Err(error) => {
                // Most likely out of file descriptors: time for connections to end.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
