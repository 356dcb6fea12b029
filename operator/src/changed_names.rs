//! Names of TrustDomains of which something changed, collected until somebody takes them.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Names that were added and not taken since.
#[derive(Debug, Default)]
pub(crate) struct ChangedNames {
    names: Mutex<BTreeSet<String>>,
    is_not_empty: Notify,
}

impl ChangedNames {
    /// Adds names, and wakes who waits for them.
    pub(crate) fn add(&self, names: impl IntoIterator<Item = String>) {
        let mut names = names.into_iter().peekable();
        if names.peek().is_some() {
            self.names.lock().extend(names);
            self.is_not_empty.notify_one();
        }
    }

    /// Waits for names, and takes all.
    pub(crate) async fn take(&self) -> BTreeSet<String> {
        loop {
            let names = std::mem::take(&mut *self.names.lock());
            if !names.is_empty() {
                return names;
            }
            self.is_not_empty.notified().await;
        }
    }
}
