//! One thing that is kept up to date: written by one task, read by everyone.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use super::SourceError;

/// The reading end.
#[derive(Clone)]
pub(super) struct Watched<T>(watch::Receiver<State<T>>);

/// The writing end.
pub(super) struct Publisher<T>(watch::Sender<State<T>>);

type State<T> = Result<Arc<T>, SourceError>;

pub(super) fn channel<T>() -> (Publisher<T>, Watched<T>) {
    let (sender, receiver) = watch::channel(Err(SourceError::Waiting { last: None }));
    (Publisher(sender), Watched(receiver))
}

impl<T: PartialEq> Publisher<T> {
    /// Replaces what there was, unless it is the same.
    pub(super) fn publish(&self, next: T) {
        self.0.send_if_modified(|state| {
            if state.as_deref() == Ok(&next) {
                return false;
            }
            *state = Ok(Arc::new(next));
            true
        });
    }

    /// There is nothing any more.
    pub(super) fn withdraw(&self, why: SourceError) {
        self.0.send_if_modified(|state| {
            let changed = state.as_deref() != Err(&why);
            *state = Err(why);
            changed
        });
    }

    /// There is nothing any more; where there was nothing yet, it is still awaited.
    #[cfg(feature = "files")]
    pub(super) fn removed(&self, why: SourceError) {
        if self.0.borrow().is_ok() {
            self.withdraw(why);
        }
    }

    /// An attempt failed: what there was stays. What a source that waits says is the newest.
    pub(super) fn failed(&self, why: &str) {
        self.0.send_if_modified(|state| {
            if let Err(SourceError::Waiting { last }) = state {
                *last = Some(why.into());
            }
            // Nothing to act upon.
            false
        });
    }
}

impl<T> Watched<T> {
    pub(super) fn current(&self) -> State<T> {
        self.0.borrow().clone()
    }

    /// The first that is published, or an error after which none will be.
    pub(super) async fn first(&self) -> State<T> {
        let mut receiver = self.0.clone();
        let ends = |state: &State<T>| matches!(state, Ok(_) | Err(SourceError::Refused { .. }));
        // The writing end is gone only if its task was aborted, which drops every source.
        receiver.wait_for(ends).await.map_or_else(|_| self.current(), |state| state.clone())
    }

    pub(super) async fn changed(&self) {
        let mut receiver = self.0.clone();
        receiver.mark_unchanged();
        let _ = receiver.changed().await;
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow().fmt(f)
    }
}
