//! A connection whose peer is known.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::PeerIdentity;

/// A stream, and who is on the other side.
#[derive(Debug)]
pub struct Authenticated<S> {
    stream: S,
    peer: PeerIdentity,
}

impl<S> Authenticated<S> {
    pub(crate) fn new(stream: S, peer: PeerIdentity) -> Self {
        Self { stream, peer }
    }

    /// Who is on the other side.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// The stream of tokio-rustls.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Both, apart.
    pub fn into_parts(self) -> (S, PeerIdentity) {
        (self.stream, self.peer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Authenticated<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Authenticated<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(feature = "tonic")]
impl<S> tonic::transport::server::Connected for Authenticated<S> {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}
