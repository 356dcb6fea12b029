//! Calls for tokens between two streams: what was asked for on the one is asked for again on the next, unless that is long
//! in coming.

use std::time::Duration;

use tokio::time::Instant;

use super::{Conversation, LONGEST_SLEEP, MAX_WAITERS, Session, exchange::unavailable};
use crate::session::tokens::TokenRequest;

impl Session {
    /// The stream has ended: who waits for an answer on it waits for the next one.
    pub(super) fn park(&mut self) {
        for (_, waiting) in self.waiters.drain() {
            let (id, audiences) = (waiting.id, waiting.audiences);
            self.parked.extend(waiting.replies.into_iter().map(|reply| {
                let (id, audiences) = (id.clone(), audiences.clone());
                TokenRequest { id, audiences, reply }
            }));
        }
        self.release_parked();
    }

    /// Whether a call may wait for the next stream.
    pub(super) fn may_park(&self) -> bool {
        self.parked.len() < MAX_WAITERS && self.parking_ends.is_some_and(|end| Instant::now() < end)
    }

    /// How long calls still wait.
    pub(super) fn parking_left(&self) -> Duration {
        let end = self.parking_ends.filter(|_| !self.parked.is_empty());
        end.map_or(LONGEST_SLEEP, |end| end.saturating_duration_since(Instant::now()))
    }

    /// The next stream stands: all that waited for it is asked there.
    pub(super) fn resume(&mut self, conversation: &mut Conversation) {
        self.parking_ends = None;
        for request in std::mem::take(&mut self.parked) {
            self.answer(request, Some(&mut *conversation));
        }
    }

    /// Lets go who has waited long enough.
    pub(super) fn release_parked(&mut self) {
        if self.parking_ends.is_some_and(|end| Instant::now() < end) {
            return;
        }
        for request in self.parked.drain(..) {
            drop(request.reply.send(Err(unavailable("the stream to the issuer broke, and there is no other yet"))));
        }
    }
}
