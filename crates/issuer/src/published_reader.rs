//! A stream's own copy of what is published. All streams of the process read it for each credential, so reading neither writes
//! nor waits unless there is something new.

use std::sync::Arc;

use tokio::sync::watch;

/// What was published when last looked at.
#[derive(Debug)]
pub struct PublishedReader<T> {
    receiver: watch::Receiver<Arc<T>>,
    seen: Arc<T>,
}

impl<T> PublishedReader<T> {
    /// A view of what is published now.
    #[must_use]
    pub fn new(mut receiver: watch::Receiver<Arc<T>>) -> Self {
        let seen = receiver.borrow_and_update().clone();
        Self { receiver, seen }
    }

    /// Whether something was published that [`Self::current`] has not returned yet: one atomic read.
    #[must_use]
    pub fn has_news(&self) -> bool {
        // An error: the publisher is gone, and what it published last may not have been seen.
        self.receiver.has_changed().unwrap_or(true)
    }

    /// What is published now.
    #[must_use]
    pub fn current(&mut self) -> &Arc<T> {
        if self.has_news() {
            self.seen = self.receiver.borrow_and_update().clone();
        }
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::PublishedReader;
    use std::{
        sync::{Arc, mpsc},
        thread,
        time::Duration,
    };

    use tokio::sync::watch;

    #[test]
    fn what_is_published_is_seen_also_when_the_publisher_is_gone() {
        let (sender, receiver) = watch::channel(Arc::new(1));
        let mut view = PublishedReader::new(receiver);
        assert!(!view.has_news());
        assert_eq!(**view.current(), 1);
        sender.send_replace(Arc::new(2));
        assert!(view.has_news());
        assert_eq!(**view.current(), 2);
        assert!(!view.has_news());
        sender.send_replace(Arc::new(3));
        drop(sender);
        assert_eq!(**view.current(), 3);
    }

    /// A look that took the channel's lock, to read or to write, would wait here until the publication ends.
    #[test]
    fn a_look_waits_for_no_publication_in_progress() {
        let (sender, receiver) = watch::channel(Arc::new(1));
        let mut view = PublishedReader::new(receiver);
        let (locked, is_locked) = mpsc::channel();
        let (done, is_done) = mpsc::channel::<()>();
        let publisher = thread::spawn(move || {
            let mut in_time = false;
            sender.send_modify(|value| {
                locked.send(()).expect("the test waits");
                in_time = is_done.recv_timeout(Duration::from_secs(10)).is_ok();
                *value = Arc::new(2);
            });
            in_time
        });
        is_locked.recv().expect("it publishes");
        assert_eq!(**view.current(), 1);
        done.send(()).expect("the publisher waits");
        assert!(publisher.join().expect("no panic"), "the look waited for the publication");
    }
}
