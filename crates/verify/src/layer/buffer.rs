//! Bodies kept in memory, up to a limit.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use tokio::time::timeout;

use super::BoxError;

/// For a body to arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The whole of a body.
pub(super) struct Buffered {
    pub(super) bytes: Bytes,
    /// Fields after the body, which no signature covers. They are dropped.
    pub(super) has_trailers: bool,
}

/// Why a body is not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum BufferError {
    #[error("the body is longer than the {limit} bytes that are kept in memory to verify or sign it")]
    TooLong { limit: usize },
    #[error("the body has {found} bytes, and Content-Length says otherwise")]
    Length { found: usize },
    #[error("the body did not arrive within {} s", TIMEOUT.as_secs())]
    TooSlow,
    #[error("the body ended early: {0}")]
    Broken(BoxError),
}

/// Reads all of `body`, unless it is longer than `limit`, or says that it is.
pub(super) async fn buffer<B>(body: B, headers: &HeaderMap, limit: usize) -> Result<Buffered, BufferError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let said = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    // The length that the response to HEAD has is that of no body (RFC 9110, section 9.3.2).
    if said.is_some_and(|said| said > limit as u64) && !body.is_end_stream() {
        return Err(BufferError::TooLong { limit });
    }
    let collected = timeout(TIMEOUT, Limited::new(body, limit).collect()).await.map_err(|_| BufferError::TooSlow)?;
    let collected = match collected {
        Ok(collected) => collected,
        Err(error) if error.is::<LengthLimitError>() => return Err(BufferError::TooLong { limit }),
        Err(error) => return Err(BufferError::Broken(error)),
    };
    let has_trailers = collected.trailers().is_some();
    Ok(Buffered { bytes: collected.to_bytes(), has_trailers })
}

/// As [`buffer`], of a request, whose length is what its `Content-Length` says.
pub(super) async fn buffer_request<B>(body: B, headers: &HeaderMap, limit: usize) -> Result<Bytes, BufferError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let bytes = buffer(body, headers, limit).await?.bytes;
    let is_as_long = |value: &http::HeaderValue| {
        value.to_str().ok().and_then(|text| text.trim().parse::<usize>().ok()) == Some(bytes.len())
    };
    let found = bytes.len();
    if headers.get_all(CONTENT_LENGTH).iter().all(is_as_long) { Ok(bytes) } else { Err(BufferError::Length { found }) }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, combinators::UnsyncBoxBody};

    use super::*;

    fn saying(lengths: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for length in lengths {
            headers.append(CONTENT_LENGTH, http::HeaderValue::from_static(length));
        }
        headers
    }

    async fn read(body: &'static str, lengths: &[&'static str], limit: usize) -> Result<Bytes, BufferError> {
        buffer_request(Full::new(Bytes::from_static(body.as_bytes())), &saying(lengths), limit).await
    }

    #[tokio::test]
    async fn a_body_is_kept_up_to_the_limit() {
        assert_eq!(read("seven", &[], 5).await.unwrap(), "seven");
        assert!(matches!(read("seven", &[], 4).await, Err(BufferError::TooLong { limit: 4 })));
    }

    #[tokio::test]
    async fn a_body_that_says_it_is_too_long_is_not_read() {
        let frames = futures::stream::poll_fn(|_| panic!("it is read"));
        let unread: UnsyncBoxBody<Bytes, std::io::Error> = http_body_util::StreamBody::new(frames).boxed_unsync();
        assert!(matches!(buffer(unread, &saying(&["5"]), 4).await, Err(BufferError::TooLong { .. })));
    }

    #[tokio::test]
    async fn a_body_that_is_longer_or_shorter_than_it_says_is_refused() {
        assert_eq!(read("seven", &["5"], 10).await.unwrap(), "seven");
        for lengths in [&["4"][..], &["6"], &["x"], &["5", "6"], &["5, 5"]] {
            assert!(matches!(read("seven", lengths, 10).await, Err(BufferError::Length { found: 5 })), "{lengths:?}");
        }
    }
}
