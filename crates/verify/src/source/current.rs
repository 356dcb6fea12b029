//! One thing that is kept up to date: written by one task, read by everyone.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use super::SourceError;

/// The reading end.
pub(super) struct Watched<T>(watch::Receiver<State<T>>);

/// The writing end.
pub(super) struct Publisher<T>(watch::Sender<State<T>>);

pub(super) type State<T> = Result<Arc<T>, SourceError>;

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
    pub(super) fn removed(&self, why: &SourceError) {
        if self.0.borrow().is_ok() {
            self.withdraw(why.clone());
        } else {
            self.failed(&why.to_string());
        }
    }

    /// An attempt failed: what there was stays. Returns whether it is the first after which nothing was received yet.
    pub(super) fn failed(&self, why: &str) -> bool {
        let mut is_first = false;
        self.0.send_if_modified(|state| {
            if let Err(SourceError::Waiting { last }) = state {
                is_first = last.is_none();
                *last = Some(why.into());
            }
            // Nothing to act upon.
            false
        });
        is_first
    }
}

impl<T> Watched<T> {
    pub(super) fn current(&self) -> State<T> {
        match self.0.borrow().clone() {
            Err(refused @ SourceError::Refused { .. }) => Err(refused),
            // The writing task has ended otherwise than by itself.
            _ if self.0.has_changed().is_err() => Err(SourceError::Stopped),
            state => state,
        }
    }

    /// The first for which `wanted` holds, or an error after which there will be none.
    pub(super) async fn first(&self, wanted: impl Fn(&T) -> bool) -> State<T> {
        let mut receiver = self.0.clone();
        let ends = |state: &State<T>| match state {
            Ok(content) => wanted(content),
            Err(error) => matches!(error, SourceError::Refused { .. }),
        };
        match receiver.wait_for(ends).await {
            Ok(state) => state.clone(),
            Err(_) => Err(SourceError::Stopped),
        }
    }
}

impl<T> Watched<T> {
    /// Waits until the content is another than what `seen` saw last, and lets it see that. An error if there will be no other.
    pub(super) async fn changed_since(&self, seen: &mut Option<State<T>>) -> Result<(), SourceError> {
        let mut receiver = self.0.clone();
        let is_other = |state: &State<T>| match (state, seen.as_ref()) {
            (Ok(one), Some(Ok(other))) => !Arc::ptr_eq(one, other),
            (Err(one), Some(Err(other))) => !(one == other || is_waiting(one) && is_waiting(other)),
            _ => true,
        };
        let state = match receiver.wait_for(is_other).await {
            Ok(state) => state.clone(),
            Err(_) => return Err(self.current().err().unwrap_or(SourceError::Stopped)),
        };
        *seen = Some(state);
        Ok(())
    }
}

fn is_waiting(error: &SourceError) -> bool {
    matches!(error, SourceError::Waiting { .. })
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow().fmt(f)
    }
}
