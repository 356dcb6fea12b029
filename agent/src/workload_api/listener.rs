//! The socket: bound under another name and renamed, so that a restarted agent never leaves a gap; open to every process
//! that has the mount; with limits on connections and requests.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_contract::files::WORKLOAD_SOCKET;
use countersign_proto::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use super::WorkloadApi;
use crate::uds_authority_rewrite::RewriteStream;

/// Connections open on one socket; further ones are closed at once.
const MAX_CONNECTIONS: usize = 64;
/// Concurrent calls on one connection.
const MAX_STREAMS: u32 = 64;
/// In bytes: requests are audiences and one token.
const MAX_REQUEST: usize = 64 * 1024;
/// Between attempts when accepting fails for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It cannot be bound.
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
    let path = directory.join(WORKLOAD_SOCKET);
    let listener = bind(&path).map_err(|source| ListenError::Bind { path, source })?;
    let service = SpiffeWorkloadApiServer::new(api).max_decoding_message_size(MAX_REQUEST);
    tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(service)
        .serve_with_incoming(accepted(listener))
        .await?;
    Ok(())
}

/// Listens at `path`, for every process that has the directory mounted. What listened there before is replaced without a gap.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
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

fn accepted(listener: UnixListener) -> impl stream::Stream<Item = io::Result<PermittedStream>> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    stream::unfold((listener, permits), |(listener, permits)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match Arc::clone(&permits).try_acquire_owned() {
                    Ok(permit) => {
                        let stream = PermittedStream { stream: RewriteStream::new(stream), _permit: permit };
                        return Some((Ok(stream), (listener, permits)));
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

/// A connection, and its permit among those allowed.
struct PermittedStream {
    stream: RewriteStream<UnixStream>,
    _permit: OwnedSemaphorePermit,
}

impl Connected for PermittedStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for PermittedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PermittedStream {
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
