//! Where the Workload API asks for JWT-SVIDs: a bounded queue to the session's driver, which answers from what it holds or
//! asks the issuer.

use countersign_core::id::SpiffeId;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// Requests of one session waiting to be looked at.
const QUEUE: usize = 64;

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenDeskError {
    /// The issuer refused, with a gRPC status code.
    #[error("{message}")]
    Refused {
        /// The gRPC status code.
        code: i32,
        /// The issuer's words.
        message: String,
    },
    /// The issuer cannot be asked now and none is held.
    #[error("{0}")]
    Unavailable(String),
}

/// Where the answer goes.
pub(super) type Reply = oneshot::Sender<Result<Zeroizing<String>, TokenDeskError>>;

/// One question.
#[derive(Debug)]
pub(super) struct TokenRequest {
    pub(super) id: SpiffeId,
    pub(super) audiences: Vec<String>,
    pub(super) reply: Reply,
}

/// The asking end; clones share the queue.
#[derive(Debug, Clone)]
pub struct TokenDesk {
    queue: mpsc::Sender<TokenRequest>,
}

impl TokenDesk {
    pub(super) fn open() -> (Self, mpsc::Receiver<TokenRequest>) {
        let (queue, requests) = mpsc::channel(QUEUE);
        (Self { queue }, requests)
    }

    /// A JWT-SVID of `id` for `audiences`: JWS compact serialization.
    ///
    /// # Errors
    /// See [`TokenDeskError`].
    pub async fn token(&self, id: SpiffeId, audiences: Vec<String>) -> Result<Zeroizing<String>, TokenDeskError> {
        let gone = || TokenDeskError::Unavailable("the stream to the issuer broke; ask again".into());
        let (reply, answer) = oneshot::channel();
        self.queue.send(TokenRequest { id, audiences, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
