//! The rewriting as a stream: bytes read have passed the [`Transformer`], bytes written pass unchanged.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::transformer::Transformer;

/// Bytes read at once from the client.
const CHUNK: usize = 4096;

/// An accepted connection whose client half is rewritten.
#[derive(Debug)]
pub struct RewriteStream<S> {
    inner: S,
    transformer: Transformer,
    /// Rewritten bytes; those before `read` were read.
    ready: Vec<u8>,
    read: usize,
}

impl<S> RewriteStream<S> {
    /// Rewrites what `inner` yields from its first byte on.
    pub fn new(inner: S) -> Self {
        Self { inner, transformer: Transformer::default(), ready: Vec::new(), read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RewriteStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let pending = this.ready.get(this.read..).unwrap_or_default();
            if !pending.is_empty() {
                let (head, _) = pending.split_at(pending.len().min(buf.remaining()));
                buf.put_slice(head);
                this.read += head.len();
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.read = 0;
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.transformer
                .push(chunk.filled(), &mut this.ready)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RewriteStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S> Connected for RewriteStream<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
