//! Whether a proof was used before, asked of a cache that may have to be awaited.

use std::{cell::Cell, pin::Pin};

use countersign_core::wimse::{MemoryReplayCache, ReplayCache, ReplayCacheFull, ReplayKey, Seen};
use jiff::Timestamp;

/// Remembers proofs. A request is accepted only after this has said [`Seen::First`]; when it cannot say, the request is refused.
///
/// What one process remembers ([`MemoryReplayCache`]) is forgotten with it, and unknown to its replicas: a proof can be used once at each
/// replica, and once more after a restart, until it expires, which is within 70 s. A cache that replicas share, and that outlives
/// them, refuses that too (draft-ietf-wimse-http-signature-08, section 3).
pub trait SharedReplayCache: Send + Sync {
    /// Remembers `key` until `until`, when the proof has expired, unless it is known. It must do both in one step: of two requests with
    /// one proof that arrive at once, one is the first. It is called once all other checks have passed.
    ///
    /// # Errors
    /// When it cannot be remembered, or not be known whether it is new.
    fn remember<'a>(&'a self, key: &'a ReplayKey, until: Timestamp, now: Timestamp) -> Remembering<'a>;
}

/// What [`SharedReplayCache::remember`] returns.
pub type Remembering<'a> = Pin<Box<dyn Future<Output = Result<Seen, ReplayCacheError>> + Send + 'a>>;

/// Why a proof could not be remembered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayCacheError {
    /// There is no room for another proof.
    #[error(transparent)]
    Full(#[from] ReplayCacheFull),
    /// The cache cannot be reached, or failed.
    #[error("the shared replay cache does not answer: {reason}")]
    Unavailable {
        /// Without anything secret: it is logged.
        reason: String,
    },
}

impl SharedReplayCache for MemoryReplayCache {
    fn remember<'a>(&'a self, key: &'a ReplayKey, until: Timestamp, now: Timestamp) -> Remembering<'a> {
        let seen = ReplayCache::remember(self, key, until, now);
        Box::pin(async move { Ok(seen?) })
    }
}

/// Stands in for the cache while a proof is verified, and keeps what that is to be asked afterwards.
#[derive(Default)]
pub(super) struct Pending(Cell<Option<(ReplayKey, Timestamp)>>);

impl Pending {
    /// What was to be remembered: the key, and until when. `None` when nothing was.
    pub(super) fn into_inner(self) -> Option<(ReplayKey, Timestamp)> {
        self.0.into_inner()
    }
}

impl ReplayCache for Pending {
    fn remember(&self, key: &ReplayKey, until: Timestamp, _: Timestamp) -> Result<Seen, ReplayCacheFull> {
        self.0.set(Some((*key, until)));
        Ok(Seen::First)
    }
}
