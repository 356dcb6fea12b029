//! An open stream to the issuer, and why a stream ended.

use std::time::Duration;

use countersign_proto::issuer::v1::{HeldSvid, SessionRequest};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::token::Token;
use crate::upstream::Connection;

/// The delay after another agent took over the session: this one is probably terminating, and must not take it back.
const SUPERSEDED_DELAY: Duration = Duration::from_secs(30);

/// The open stream.
pub(super) struct IssuerStream {
    pub(super) outgoing: mpsc::Sender<SessionRequest>,
    /// The newest token that the issuer was sent; the stream lives until it expires.
    pub(super) token: Token,
    /// When the token file is read again.
    pub(super) reread_token_at: Timestamp,
    /// The issuer has sent a State.
    pub(super) state_received: bool,
    /// The generation of the last State, until it is acknowledged.
    pub(super) unacknowledged: Option<u64>,
    pub(super) receipt: Option<SentReceipt>,
    pub(super) connection: Connection,
}

/// The receipt that was sent last.
pub(super) struct SentReceipt {
    pub(super) svids: Vec<HeldSvid>,
    pub(super) at: Instant,
}

/// How often a receipt is repeated on a stream on which nothing has changed: for the clock that is in it.
const RECEIPT_AGAIN: Duration = Duration::from_secs(600);

impl SentReceipt {
    /// Whether it still says what the workload has.
    pub(super) fn is_current(&self, held: &[HeldSvid], now: Instant) -> bool {
        self.svids == held && now.duration_since(self.at) < RECEIPT_AGAIN
    }
}

/// Why a stream ended, and the delay that the issuer requested.
#[derive(Debug)]
pub(super) struct StreamEnd {
    /// For people.
    pub(super) reason: String,
    pub(super) requested_delay: Option<Duration>,
    /// The issuer ended it with a time to reconnect.
    pub(super) reconnect_requested: bool,
    /// The issuer refused this session, which says nothing about its connection.
    pub(super) session_refused: bool,
    /// The issuer had sent a State before.
    pub(super) state_received: bool,
}

impl StreamEnd {
    /// The stream failed, or could not be opened.
    pub(super) fn failed(reason: String) -> Self {
        Self {
            reason,
            requested_delay: None,
            reconnect_requested: false,
            session_refused: false,
            state_received: false,
        }
    }

    /// The issuer ended it with `status`. The delay is that of its metadata, or a long one when the session was superseded.
    pub(super) fn from_status(status: &Status) -> Self {
        let retry_after = status.metadata().get("retry-after-ms").and_then(|value| value.to_str().ok()?.parse().ok());
        let superseded = (status.code() == Code::Aborted).then_some(SUPERSEDED_DELAY);
        Self {
            reason: format!("{}: {}", status.code(), status.message()),
            requested_delay: retry_after.map(Duration::from_millis).or(superseded),
            reconnect_requested: status.code() == Code::Unavailable && retry_after.is_some(),
            session_refused: is_refusal_of_session(status.code()),
            state_received: false,
        }
    }
}

/// The codes with which the Issuer API refuses a session, as opposed to those of a replica that cannot serve now, or of a
/// broken connection.
fn is_refusal_of_session(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::Aborted)
}

#[cfg(test)]
mod tests {
    use super::{Duration, HeldSvid, Instant, RECEIPT_AGAIN, SentReceipt};

    #[test]
    fn a_receipt_is_repeated_when_something_else_is_held_and_now_and_then() {
        let held = |byte| vec![HeldSvid { socket_sha256: vec![byte; 32], files_sha256: Vec::new() }];
        let at = Instant::now();
        let sent = SentReceipt { svids: held(1), at };
        let almost = at + RECEIPT_AGAIN - Duration::from_millis(1);
        assert!(sent.is_current(&held(1), almost));
        assert!(!sent.is_current(&held(1), at + RECEIPT_AGAIN));
        assert!(!sent.is_current(&held(2), at) && !sent.is_current(&[], at));
    }
}
