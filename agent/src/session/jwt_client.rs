//! How the Workload API gets JWT-SVIDs: through a bounded queue to the session's driver, which answers with a cached token or
//! requests one from the issuer.

use countersign_core::id::SpiffeId;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// Calls of one session that the driver has not taken yet.
const QUEUE: usize = 64;

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtClientError {
    /// The issuer refused, with a gRPC status code.
    #[error("{message}")]
    Refused {
        /// The gRPC status code.
        code: i32,
        /// The issuer's message.
        message: String,
    },
    /// The issuer cannot be asked now, and no such token is cached.
    #[error("{0}")]
    Unavailable(String),
}

/// Where the result of a call goes.
pub(super) type Reply = oneshot::Sender<Result<Zeroizing<String>, JwtClientError>>;

/// One call for a token.
#[derive(Debug)]
pub(super) struct JwtCall {
    pub(super) id: SpiffeId,
    pub(super) audiences: Vec<String>,
    pub(super) reply: Reply,
}

/// The sending end of the queue; clones share it.
#[derive(Debug, Clone)]
pub struct JwtClient {
    queue: mpsc::Sender<JwtCall>,
}

impl JwtClient {
    /// A client, and the calls that the driver takes.
    pub(super) fn new() -> (Self, mpsc::Receiver<JwtCall>) {
        let (queue, calls) = mpsc::channel(QUEUE);
        (Self { queue }, calls)
    }

    /// A JWT-SVID of `id` for `audiences`: JWS compact serialization.
    ///
    /// # Errors
    /// See [`JwtClientError`].
    pub async fn fetch(&self, id: SpiffeId, audiences: Vec<String>) -> Result<Zeroizing<String>, JwtClientError> {
        let driver_ended = || JwtClientError::unavailable("the stream to the issuer broke; ask again");
        let (reply, result) = oneshot::channel();
        self.queue.send(JwtCall { id, audiences, reply }).await.map_err(|_| driver_ended())?;
        result.await.map_err(|_| driver_ended())?
    }
}

impl JwtClientError {
    pub(super) fn unavailable(reason: &str) -> Self {
        Self::Unavailable(reason.into())
    }
}
