//! Reads the body of a request, bounded before it is in memory: an ordinary review as it comes, a large one once it has its slot
//! in the budget. Of one that is not read the rest is received and dropped, since an API server reads no answer before it
//! has sent everything; so whoever made the object gets an answer with a reason.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures::StreamExt;
use tokio::time::timeout;

use crate::{
    admission::LONGEST_REVIEW,
    head::{Head, head},
    large_reviews::{Busy, LONGEST_ORDINARY, LargeReviews, Slot},
};

/// How long a review may take to arrive, with its wait: API servers give a webhook 5 s for all.
const WITHIN: Duration = Duration::from_secs(5);
/// How long a large review may take to arrive once it has its slot.
const IN_SLOT_WITHIN: Duration = Duration::from_secs(2);
/// How much of a large review is read before it has its slot: enough for [`head`].
const BEGINNING: usize = 8 * 1024;
/// How much of a review that is not read is received and dropped. A request to the API server of 3 MiB in its binary form may
/// become several times that in a review.
const DROPPED: usize = 64 * 1024 * 1024;

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
    /// It is longer than any that is read.
    TooLarge(Head),
    /// It is large, and there is no slot for it.
    Busy(Head, Busy),
    /// It took too long.
    Late,
    /// The connection ended before.
    Broken,
}

impl From<axum::Error> for ReadError {
    fn from(_: axum::Error) -> Self {
        Self::Broken
    }
}

/// Reads `body`.
pub(crate) async fn read(body: Body, budget: &LargeReviews) -> Result<Read, ReadError> {
    timeout(WITHIN, arriving(body, budget)).await.unwrap_or(Err(ReadError::Late))
}

async fn arriving(body: Body, budget: &LargeReviews) -> Result<Read, ReadError> {
    // Without a length it is large once it is longer than an ordinary one.
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
        drop_rest(chunks).await?;
        return Err(ReadError::TooLarge(head));
    }
    let slot = match budget.slot(&head.namespace, length).await {
        Ok(slot) => slot,
        Err(busy) => {
            drop(bytes);
            drop_rest(chunks).await?;
            return Err(ReadError::Busy(head, busy));
        }
    };
    bytes.reserve_exact(length - bytes.len());
    match timeout(IN_SLOT_WITHIN, all(&mut chunks, &mut bytes)).await {
        Ok(Ok(true)) => Ok(Read::Large(bytes, slot)),
        Ok(Ok(false)) => {
            drop((bytes, slot));
            drop_rest(chunks).await?;
            Err(ReadError::TooLarge(head))
        }
        Ok(Err(broken)) => Err(broken),
        Err(_) => Err(ReadError::Late),
    }
}

/// Reads what is left; whether all of it is there, since it was not too long.
async fn all(
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

/// Receives what is left and drops it.
async fn drop_rest(mut chunks: impl StreamExt<Item = Result<Bytes, axum::Error>> + Unpin) -> Result<(), ReadError> {
    let mut dropped = 0;
    while let Some(chunk) = chunks.next().await {
        dropped += chunk?.len();
        if dropped > DROPPED {
            break;
        }
    }
    Ok(())
}
