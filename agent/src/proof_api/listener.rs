//! The socket, with limits on connections and requests.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_contract::files::PROOF_SOCKET;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ProofApi;
use crate::workload_api::{ListenError, bind};

/// Connections open on one socket; further ones wait.
const MAX_CONNECTIONS: usize = 64;
/// What a connection may take to send the head of a request, also of the next one after a response.
const IDLE: Duration = Duration::from_secs(60);
/// In bytes: the head of a request, which has no more than a few short fields.
const MAX_HEAD: usize = 8 * 1024;
/// Between attempts when accepting fails for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `api` on `<directory>/proof.sock` until dropped.
///
/// # Errors
/// When the socket cannot be bound.
pub async fn serve(directory: &Path, api: ProofApi) -> Result<(), ListenError> {
    let path = directory.join(PROOF_SOCKET);
    let listener = bind(&path).map_err(|source| ListenError::Bind { path, source })?;
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { continue };
        let stream = accept(&listener).await;
        while connections.try_join_next().is_some() {}
        let api = api.clone();
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(MAX_HEAD);
            // The workload closed it, or sent something else than HTTP.
            if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!(%error, "a connection to the proof socket ended");
            }
            drop(permit);
        });
    }
}

async fn accept(listener: &UnixListener) -> tokio::net::UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the proof socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
