//! The socket: bound beside its place and moved there, so that a restarted agent never leaves a gap; open to whoever has
//! the mount; bounded.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_proto::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use super::WorkloadApi;
use crate::uds_authority_rewrite::RewriteStream;

/// Open at once on one socket; further ones are closed at once.
const MAX_CONNECTIONS: usize = 64;
/// Calls at once on one connection.
const MAX_STREAMS: u32 = 64;
/// Requests are audiences and one token.
const MAX_REQUEST: usize = 64 * 1024;
/// Between attempts when accepting fails for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not bound.
    #[error("cannot listen on {}: {source}; is the volume mounted and writable for the agent?", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The server ended.
    #[error("the Workload API ended: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves `api` on `<directory>/workload.sock` until dropped.
///
/// # Errors
/// See [`ListenError`].
pub async fn serve(directory: &Path, api: WorkloadApi) -> Result<(), ListenError> {
    let path = directory.join("workload.sock");
    let listener = bind(&path).map_err(|source| ListenError::Bind { path, source })?;
    let service = SpiffeWorkloadApiServer::new(api).max_decoding_message_size(MAX_REQUEST);
    tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(service)
        .serve_with_incoming(accepted(listener))
        .await?;
    Ok(())
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let next = path.with_extension("next");
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&next)?;
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o666))?;
    std::fs::rename(&next, path)?;
    Ok(listener)
}

fn accepted(listener: UnixListener) -> impl stream::Stream<Item = io::Result<Bounded>> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    stream::unfold((listener, places), |(listener, places)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let bounded = Bounded { stream: RewriteStream::new(stream), _place: place };
                        return Some((Ok(bounded), (listener, places)));
                    }
                    Err(_) => tracing::warn!("closed a Workload API connection: {MAX_CONNECTIONS} are open"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a Workload API connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A connection and its place among those allowed.
struct Bounded {
    stream: RewriteStream<UnixStream>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Bounded {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
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
