//! Calls for tokens between two streams: what was requested on one stream is requested again on the next, unless that takes
//! too long to open.

use std::time::Duration;

use tokio::time::Instant;

use super::stream::IssuerStream;
use super::{LONGEST_SLEEP, MAX_WAITING_CALLS, Session};
use crate::session::jwt_client::{JwtCall, JwtClientError};

impl Session {
    /// The stream has ended: the calls that waited for a response on it wait for the next one.
    pub(super) fn keep_waiting_calls(&mut self) {
        for (_, calls) in self.waiting.drain() {
            let (id, audiences) = (calls.id, calls.audiences);
            self.pending.extend(calls.replies.into_iter().map(|reply| {
                let (id, audiences) = (id.clone(), audiences.clone());
                JwtCall { id, audiences, reply }
            }));
        }
        self.expire_pending_calls();
    }

    /// Whether a call may wait for the next stream.
    pub(super) fn may_wait_for_stream(&self) -> bool {
        self.pending.len() < MAX_WAITING_CALLS
            && self.pending_deadline.is_some_and(|deadline| Instant::now() < deadline)
    }

    /// How long the pending calls still wait.
    pub(super) fn pending_calls_expire_in(&self) -> Duration {
        let deadline = self.pending_deadline.filter(|_| !self.pending.is_empty());
        deadline.map_or(LONGEST_SLEEP, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The next stream is open: the pending calls are handled on it.
    pub(super) fn resume_pending_calls(&mut self, stream: &mut IssuerStream) {
        self.pending_deadline = None;
        for call in std::mem::take(&mut self.pending) {
            self.handle_call(call, Some(&mut *stream));
        }
    }

    /// Fails the pending calls once they have waited long enough.
    pub(super) fn expire_pending_calls(&mut self) {
        if self.pending_deadline.is_some_and(|deadline| Instant::now() < deadline) {
            return;
        }
        for call in self.pending.drain(..) {
            let error = JwtClientError::unavailable("the stream to the issuer broke, and there is no other yet");
            drop(call.reply.send(Err(error)));
        }
    }
}
