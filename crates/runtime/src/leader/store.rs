//! Where the lease is stored, as the election sees it.

use std::time::Duration;

use countersign_core::lease::Record;
use futures::future::BoxFuture;

/// A lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLease {
    /// What it says.
    pub record: Record,
    /// Its version, which fences writes.
    pub version: String,
}

/// Why the lease was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another replica wrote or removed it meanwhile.
    #[error("the lease was changed by another replica; reading it again")]
    Conflict,
    /// The store refused.
    #[error("the lease: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store did not answer: whether it was written is not known.
    #[error("the lease: no answer within {0:?}")]
    NoAnswer(Duration),
}

/// Where the lease is.
pub trait LeaseStore: Send + Sync {
    /// As it is stored now.
    fn read(&self) -> BoxFuture<'_, Result<Option<StoredLease>, LeaseError>>;

    /// Stores it: new when `over` is `None`, else in place of exactly that version.
    fn write<'a>(&'a self, record: &'a Record, over: Option<&'a str>)
    -> BoxFuture<'a, Result<StoredLease, LeaseError>>;
}
