//! Reads request bodies within limits on memory: ordinary reviews at once, large ones once they have a slot of the budget. The
//! rest of a review that is not read is received and discarded, because an API server reads no answer before it has sent
//! everything; so the user who created the object gets an answer with a reason.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use countersign_runtime::connections::Peer;
use futures::StreamExt;
use tokio::time::timeout;

use crate::{
    admission::LONGEST_REVIEW,
    head::{Head, head},
    large_reviews::{Busy, LONGEST_ORDINARY, LargeReviews, Slot},
};

/// Timeout for receiving a review, including the wait for a slot: API servers wait 5 s for a webhook.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for receiving a large review once it has its slot.
const IN_SLOT_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes of a large review are read before it has its slot: enough for [`head`].
const BEGINNING: usize = 8 * 1024;
/// How many bytes of a review that is not read are received and discarded. A binary request of 3 MiB to the API server may
/// become several times as large in a review.
const MOST_DISCARDED: usize = 64 * 1024 * 1024;

/// A whole body.
#[derive(Debug)]
pub(crate) enum Read {
    /// An ordinary one.
    Ordinary(Vec<u8>),
    /// A large one, with its slot.
    Large(Vec<u8>, Slot),
}

/// Why a body is not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It exceeds the limit.
    TooLarge(Head),
    /// It is large, and there is no slot for it.
    Busy(Head, Busy),
    /// It was not received in time.
    Late,
    /// The connection ended early.
    Broken,
}

impl From<axum::Error> for ReadError {
    fn from(_: axum::Error) -> Self {
        Self::Broken
    }
}

/// Reads `body`. The connection of `peer` is not evicted while its review waits for a slot.
pub(crate) async fn read(body: Body, budget: &LargeReviews, peer: Option<&Peer>) -> Result<Read, ReadError> {
    timeout(RECEIVE_TIMEOUT, receive(body, budget, peer)).await.unwrap_or(Err(ReadError::Late))
}

async fn receive(body: Body, budget: &LargeReviews, peer: Option<&Peer>) -> Result<Read, ReadError> {
    // A body without a declared length is large once it exceeds the limit of ordinary ones.
    let declared = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let ordinary = declared.is_none_or(|length| length <= LONGEST_ORDINARY);
    let beginning = if ordinary { LONGEST_ORDINARY } else { BEGINNING };
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::with_capacity(declared.unwrap_or(BEGINNING).min(beginning));
    while bytes.len() <= beginning {
        let Some(chunk) = chunks.next().await else {
            return Ok(Read::Ordinary(bytes));
        };
        bytes.extend_from_slice(&chunk?);
    }
    let head = head(&bytes);
    let length = declared.unwrap_or(LONGEST_REVIEW).max(bytes.len());
    if length > LONGEST_REVIEW {
        drop(bytes);
        discard_rest(chunks).await?;
        return Err(ReadError::TooLarge(head));
    }
    let guard = peer.map(Peer::guard_from_eviction);
    let slot = budget.slot(&head.namespace, length).await;
    drop(guard);
    let slot = match slot {
        Ok(slot) => slot,
        Err(busy) => {
            drop(bytes);
            discard_rest(chunks).await?;
            return Err(ReadError::Busy(head, busy));
        }
    };
    bytes.reserve_exact(length - bytes.len());
    match timeout(IN_SLOT_TIMEOUT, read_rest(&mut chunks, &mut bytes)).await {
        Ok(Ok(true)) => Ok(Read::Large(bytes, slot)),
        Ok(Ok(false)) => {
            drop((bytes, slot));
            discard_rest(chunks).await?;
            Err(ReadError::TooLarge(head))
        }
        Ok(Err(broken)) => Err(broken),
        Err(_) => Err(ReadError::Late),
    }
}

/// Reads the rest; returns whether all of it was within the limit.
async fn read_rest(
    chunks: &mut (impl StreamExt<Item = Result<Bytes, axum::Error>> + Unpin),
    bytes: &mut Vec<u8>,
) -> Result<bool, ReadError> {
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if bytes.len() + chunk.len() > LONGEST_REVIEW {
            return Ok(false);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(true)
}

/// Receives the rest and discards it.
async fn discard_rest(mut chunks: impl StreamExt<Item = Result<Bytes, axum::Error>> + Unpin) -> Result<(), ReadError> {
    let mut discarded = 0;
    while let Some(chunk) = chunks.next().await {
        discarded += chunk?.len();
        if discarded > MOST_DISCARDED {
            break;
        }
    }
    Ok(())
}
