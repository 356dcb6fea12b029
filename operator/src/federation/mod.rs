//! The bundles of remote trust domains. The leader polls them and stores what it keeps in ConfigMaps, one for each TrustDomain;
//! every replica watches these, and publishes what is trusted now (`core::federation` decides both). All replicas publish the
//! same, for what is handed out follows from (TrustDomain, ConfigMap, time).

pub mod cluster_trust_bundles;
pub mod metrics;
pub mod poller;
pub mod store;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use countersign_core::{
    bundle::Bundle,
    federation::{Remote, RemoteSpec, SharedAnchor, Stored, StoredError, StoredRemote, shared_anchors, trusted},
    id::TrustDomain,
};
use countersign_index::Remotes;
use countersign_issuer::published::PublishedBundle;
use countersign_runtime::clock::Clock;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::changed_names::ChangedNames;

/// The foreign bundles that are handed out now, by trust domain.
pub type ForeignBundles = BTreeMap<TrustDomain, Arc<ForeignBundle>>;

/// A foreign bundle that is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignBundle {
    /// Its keys; the sequence is the revision under which it is handed out.
    pub bundle: Bundle,
    /// As sessions are sent it.
    pub published: Arc<PublishedBundle>,
}

/// What is known of remote trust domains, as the parts of the process share it.
#[derive(Clone, Debug)]
pub struct RemoteBundles(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    published: watch::Sender<Arc<ForeignBundles>>,
    changed_domains: ChangedNames,
    changed: Notify,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    remotes: Arc<Remotes>,
    /// What ConfigMaps hold, by the names of TrustDomains.
    stored: HashMap<String, Vec<u8>>,
    /// The same, read; of those whose TrustDomains are known.
    read: HashMap<String, Result<StoredRemote, StoredError>>,
    /// What the leader knows beyond that: the times of polls are not written each time.
    latest: HashMap<String, StoredRemote>,
}

/// A remote TrustDomain and what is known of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Where its bundle comes from.
    pub spec: RemoteSpec,
    /// The trust domains of this cluster.
    pub own: BTreeSet<TrustDomain>,
    /// What is kept of it.
    pub kept: Option<Result<StoredRemote, StoredError>>,
}

impl Known {
    /// As decisions take it.
    #[must_use]
    pub fn remote(&self) -> Remote<'_> {
        let stored = match &self.kept {
            None => Stored::Absent,
            Some(Ok(stored)) => Stored::Read(stored),
            Some(Err(error)) => Stored::Unreadable(error),
        };
        Remote { spec: &self.spec, own: &self.own, stored }
    }
}

impl RemoteBundles {
    /// Nothing known yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            published: watch::Sender::default(),
            changed_domains: ChangedNames::default(),
            changed: Notify::new(),
            clock,
        }))
    }

    /// The bundles that are handed out, now and from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<ForeignBundles>> {
        self.0.published.subscribe()
    }

    /// Waits for remote TrustDomains of which something else is known, and takes them, by name.
    pub async fn changed_domains(&self) -> BTreeSet<String> {
        self.0.changed_domains.take().await
    }

    /// When the bundle was confirmed last whose last confirmation is longest ago.
    #[must_use]
    pub fn oldest_confirmation(&self) -> Option<Timestamp> {
        let state = self.0.state.lock();
        let confirmed = |remote: Remote<'_>| match remote.stored {
            Stored::Read(stored) => stored.confirmed_at(),
            Stored::Absent | Stored::Unreadable(_) => None,
        };
        state.remotes().filter_map(confirmed).min()
    }

    /// What is known of a remote TrustDomain.
    #[must_use]
    pub fn known(&self, name: &str) -> Option<Known> {
        let state = self.0.state.lock();
        let spec = state.remotes.by_name.get(name)?.spec.clone();
        let kept = match state.kept(name) {
            Stored::Absent => None,
            Stored::Read(stored) => Some(Ok(stored.clone())),
            Stored::Unreadable(error) => Some(Err(error.clone())),
        };
        Some(Known { spec, own: state.remotes.own.clone(), kept })
    }

    /// The ConfigMap of a TrustDomain as it is stored now; `None`: there is none.
    pub fn apply_stored(&self, name: &str, bytes: Option<Vec<u8>>) {
        self.change(|state| {
            match bytes {
                Some(bytes) => drop(state.stored.insert(name.to_owned(), bytes)),
                None => drop(state.stored.remove(name)),
            }
            state.read_stored(name);
            vec![name.to_owned()]
        });
    }

    /// Whether the ConfigMap of a TrustDomain holds this.
    #[must_use]
    pub fn is_stored(&self, name: &str, bytes: Option<&[u8]>) -> bool {
        self.0.state.lock().stored.get(name).map(Vec::as_slice) == bytes
    }

    /// The names of the TrustDomains that have a ConfigMap.
    #[must_use]
    pub fn stored_names(&self) -> Vec<String> {
        self.0.state.lock().stored.keys().cloned().collect()
    }

    /// What the leader keeps of a TrustDomain now; `None`: it leads no longer, or the TrustDomain is gone.
    pub fn set_latest(&self, name: &str, latest: Option<StoredRemote>) {
        self.change(|state| {
            match latest {
                Some(latest) => drop(state.latest.insert(name.to_owned(), latest)),
                None => drop(state.latest.remove(name)),
            }
            vec![name.to_owned()]
        });
    }

    /// Follows which remote TrustDomains there are, for as long as the process lives.
    pub async fn follow(&self, mut remotes: watch::Receiver<Arc<Remotes>>) {
        loop {
            let now = remotes.borrow_and_update().clone();
            self.change(|state| state.set_remotes(now));
            if remotes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Publishes again whenever time alone changes what is handed out, for as long as the process lives.
    pub async fn keep_time(&self) {
        loop {
            let next = self.0.state.lock().next_change(self.0.clock.now());
            tokio::select! {
                () = self.0.clock.draws_near(next.unwrap_or(Timestamp::MAX)) => self.change(|_| Vec::new()),
                () = self.0.changed.notified() => {}
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State) -> Vec<String>) {
        let touched: BTreeSet<String> = {
            let mut state = self.0.state.lock();
            let touched = change(&mut state);
            let next = state.foreign(&self.0.published.borrow(), self.0.clock.now());
            // Under the lock, so that of two changes the later one is published last.
            let is_published_anew = self.0.published.send_if_modified(|current| {
                let is_changed = **current != next;
                if is_changed {
                    *current = Arc::new(next);
                }
                is_changed
            });
            let all = state.remotes.by_name.keys().filter(|_| is_published_anew).cloned();
            touched.into_iter().chain(all).collect()
        };
        self.0.changed_domains.add(touched);
        self.0.changed.notify_one();
    }
}

impl State {
    /// What is kept of a TrustDomain.
    fn kept(&self, name: &str) -> Stored<'_> {
        match (self.latest.get(name), self.read.get(name)) {
            (Some(latest), _) => Stored::Read(latest),
            (None, Some(Ok(stored))) => Stored::Read(stored),
            (None, Some(Err(error))) => Stored::Unreadable(error),
            (None, None) => Stored::Absent,
        }
    }

    fn remotes(&self) -> impl Iterator<Item = Remote<'_>> {
        let own = &self.remotes.own;
        self.remotes.by_name.iter().map(move |(name, one)| Remote { spec: &one.spec, own, stored: self.kept(name) })
    }

    /// Reads what the ConfigMap of a TrustDomain holds.
    fn read_stored(&mut self, name: &str) {
        let read = self.remotes.by_name.get(name).zip(self.stored.get(name));
        let read = read.map(|(remote, bytes)| StoredRemote::from_bytes(remote.spec.trust_domain(), bytes));
        match read {
            Some(read) => drop(self.read.insert(name.to_owned(), read)),
            None => drop(self.read.remove(name)),
        }
    }

    fn set_remotes(&mut self, remotes: Arc<Remotes>) -> Vec<String> {
        let before = std::mem::replace(&mut self.remotes, remotes);
        let now = self.remotes.clone();
        let is_changed = |name: &&String| before.own != now.own || before.by_name.get(*name) != now.by_name.get(*name);
        let all: BTreeSet<&String> = before.by_name.keys().chain(now.by_name.keys()).collect();
        let changed: Vec<String> = all.into_iter().filter(is_changed).cloned().collect();
        changed.iter().for_each(|name| self.read_stored(name));
        changed
    }

    /// What is handed out at `now`. What is handed out already, by `before`, is not written anew.
    fn foreign(&self, before: &ForeignBundles, now: Timestamp) -> ForeignBundles {
        let bundle = |remote: Remote<'_>| {
            let bundle = trusted(&remote, now).bundle?;
            let name = bundle.trust_domain.clone();
            if let Some(known) = before.get(&name).filter(|known| known.bundle == bundle) {
                return Some((name, known.clone()));
            }
            let published = PublishedBundle { document: bundle.to_json().into(), sequence: bundle.sequence };
            Some((name, Arc::new(ForeignBundle { bundle, published: Arc::new(published) })))
        };
        self.remotes().filter_map(bundle).collect()
    }

    fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.remotes().filter_map(|remote| trusted(&remote, now).next_change).min()
    }
}

/// The keys that foreign trust domains share with each other or with those of this cluster.
#[must_use]
pub fn anchors_shared_with<'a>(
    trust_domain: &TrustDomain,
    foreign: &'a ForeignBundles,
    own: impl IntoIterator<Item = &'a Bundle>,
) -> Vec<SharedAnchor> {
    let all = shared_anchors(foreign.values().map(|one| &one.bundle).chain(own));
    all.into_iter().filter(|anchor| anchor.trust_domains.contains(trust_domain)).collect()
}

#[cfg(test)]
mod tests;
