//! The index as the parts of the process share it, and a session's subscription to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use countersign_core::journal::AuthorityConfig;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{Entitlement, IdentityKey, Index, Remotes};

/// The index as the parts of the process share it. The lock is held for one change or one look, never across `.await`.
#[derive(Clone, Debug, Default)]
pub struct SharedIndex(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    index: Mutex<Index>,
    dirty_domains: Notify,
    dirty_identities: Notify,
    renamed_holders: Notify,
    authorities: watch::Sender<Arc<BTreeMap<String, AuthorityConfig>>>,
    remotes: watch::Sender<Arc<Remotes>>,
}

/// Between two times at which those are judged anew who lose a claim that many share to another than before.
const NAMING: Duration = Duration::from_secs(1);

impl SharedIndex {
    /// Shares an index.
    #[must_use]
    pub fn new(index: Index) -> Self {
        Self(Arc::new(Shared { index: Mutex::new(index), ..Shared::default() }))
    }

    /// Changes the index; whoever waits for objects whose status may change is woken.
    pub fn update<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        let (answer, domains, identities, holders) = {
            let mut index = self.0.index.lock();
            let answer = change(&mut index);
            if std::mem::take(&mut index.authorities_changed) {
                // Under the lock, so that of two changes the later one is published last.
                publish(&self.0.authorities, index.accepted_authorities());
                publish(&self.0.remotes, index.accepted_remotes());
            }
            let (domains, identities) = (!index.dirty.domains.is_empty(), !index.dirty.identities.is_empty());
            (answer, domains, identities, index.has_renamed_holders())
        };
        if holders {
            self.0.renamed_holders.notify_one();
        }
        if domains {
            self.0.dirty_domains.notify_one();
        }
        if identities {
            self.0.dirty_identities.notify_one();
        }
        answer
    }

    /// Looks at the index.
    pub fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.0.index.lock())
    }

    /// The authorities of all accepted TrustDomains by the objects' names, now and from now on.
    #[must_use]
    pub fn authorities(&self) -> watch::Receiver<Arc<BTreeMap<String, AuthorityConfig>>> {
        self.0.authorities.subscribe()
    }

    /// The remote trust domains, now and from now on.
    #[must_use]
    pub fn remotes(&self) -> watch::Receiver<Arc<Remotes>> {
        self.0.remotes.subscribe()
    }

    /// Notifies every session of a change outside the index that its state depends on, such as a published bundle. Each session
    /// has a notification of its own: one that all of them wait for would have a lock that all of them take.
    pub fn notify_sessions(&self) {
        self.0.index.lock().sessions.wake();
    }

    /// Waits for TrustDomains whose status may have to change, and takes them.
    pub async fn dirty_domains(&self) -> BTreeSet<String> {
        loop {
            let dirty = std::mem::take(&mut self.0.index.lock().dirty.domains);
            if !dirty.is_empty() {
                return dirty;
            }
            self.0.dirty_domains.notified().await;
        }
    }

    /// Waits for WorkloadIdentities whose status may have to change, and takes them.
    pub async fn dirty_identities(&self) -> BTreeSet<IdentityKey> {
        loop {
            let dirty = std::mem::take(&mut self.0.index.lock().dirty.identities);
            if !dirty.is_empty() {
                return dirty;
            }
            self.0.dirty_identities.notified().await;
        }
    }

    /// Names the holders of claims that many share, for as long as the process lives.
    pub async fn keep_naming_holders(&self) {
        loop {
            self.0.renamed_holders.notified().await;
            tokio::time::sleep(NAMING).await;
            while self.update(Index::name_holders) {
                // The lock is held for a part of them only.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Subscribes a session to what its pod is entitled to.
    #[must_use]
    pub fn subscribe(&self, uid: &str, session: &str) -> Subscription {
        let (receiver, namespace) = self.update(|index| {
            let namespace = index.pod(uid).map(|pod| pod.facts.namespace).unwrap_or_default();
            (index.subscribe(uid, session), namespace)
        });
        Subscription { receiver, index: self.clone(), uid: uid.to_owned(), session: session.to_owned(), namespace }
    }
}

/// Replaces what is published, if the next differs.
pub(super) fn publish<T: PartialEq>(published: &watch::Sender<Arc<T>>, next: T) {
    published.send_if_modified(|current| {
        let changed = **current != next;
        if changed {
            *current = Arc::new(next);
        }
        changed
    });
}

/// A session's view of what its pod is entitled to; ends with it.
#[derive(Debug)]
pub struct Subscription {
    pub(super) receiver: watch::Receiver<Arc<Entitlement>>,
    index: SharedIndex,
    uid: String,
    session: String,
    namespace: String,
}

impl Subscription {
    /// What was published last.
    #[must_use]
    pub fn current(&self) -> Arc<Entitlement> {
        self.receiver.borrow().clone()
    }

    /// Waits for the next change.
    pub async fn changed(&mut self) {
        // The sender lives in the index until this subscription has gone.
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.index.update(|index| index.sessions.unsubscribe(&self.uid, &self.session, &self.namespace));
    }
}
