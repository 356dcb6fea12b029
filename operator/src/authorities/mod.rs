//! The authorities of every trust domain and of the control plane. Their journals live in Secrets; every replica watches
//! these, and publishes what signs now and what is trusted now. States follow from (journal, time), so all replicas
//! switch together.

pub mod journal_cache;
pub mod readiness;
pub mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use countersign_issuer::published::Published;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use self::{
    journal_cache::{AuthorityConfig, JournalCache, StoredSecret},
    readiness::AuthorityReadinessMap,
};
use crate::{changed_names::ChangedNames, federation::ForeignBundles};
use countersign_runtime::clock::Clock;

/// The journals as the parts of the process share them, and what is published of them.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Mutex<JournalCache>,
    published: watch::Sender<Arc<Published>>,
    readiness: watch::Sender<Arc<AuthorityReadinessMap>>,
    /// TrustDomains, by name, whose authorities changed and were not looked at since.
    changed_domains: ChangedNames,
    changed: Notify,
    /// The bundles of remote trust domains.
    foreign: Mutex<Arc<ForeignBundles>>,
    clock: Clock,
}

impl Authorities {
    /// Nothing known yet; `cluster` is the uid of the namespace kube-system.
    #[must_use]
    pub fn new(cluster: String, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            cache: Mutex::new(JournalCache::new(cluster)),
            published: watch::Sender::default(),
            readiness: watch::Sender::default(),
            changed_domains: ChangedNames::default(),
            changed: Notify::new(),
            foreign: Mutex::default(),
            clock,
        }))
    }

    /// What is published, now and from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.0.published.subscribe()
    }

    /// Which TrustDomains' authorities can be used, now and from now on.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<Arc<AuthorityReadinessMap>> {
        self.0.readiness.subscribe()
    }

    /// Waits for TrustDomains whose authorities have changed, and takes them, by name.
    pub async fn changed_domains(&self) -> BTreeSet<String> {
        self.0.changed_domains.take().await
    }

    /// A journal's Secret as it is stored now.
    pub fn apply_secret(&self, name: &str, secret: StoredSecret) {
        self.change(|cache, now| cache.apply_secret(name, secret, now));
    }

    /// A journal's Secret is gone.
    pub fn remove_secret(&self, name: &str) {
        self.change(|cache, now| cache.remove_secret(name, now));
    }

    /// Every journal's Secret was listed.
    pub fn complete(&self) {
        self.change(JournalCache::complete);
    }

    /// Follows what TrustDomains specify of their authorities, for as long as the process lives.
    pub async fn follow(&self, mut configs: watch::Receiver<Arc<BTreeMap<String, AuthorityConfig>>>) {
        loop {
            let configs_now = configs.borrow_and_update().clone();
            self.configure(&configs_now);
            if configs.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Follows which bundles of remote trust domains are handed out, for as long as the process lives.
    pub async fn follow_foreign(&self, mut bundles: watch::Receiver<Arc<ForeignBundles>>) {
        loop {
            *self.0.foreign.lock() = bundles.borrow_and_update().clone();
            self.publish(&self.0.cache.lock());
            if bundles.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What all TrustDomains specify of their authorities, by name: the others have none here.
    pub fn configure(&self, configs: &BTreeMap<String, AuthorityConfig>) {
        self.change(|cache, now| {
            let gone: Vec<String> = cache.configured().map(|known| known.name.clone()).collect();
            let gone = gone.iter().filter(|name| !configs.contains_key(*name));
            let mut changed: Vec<String> = gone.flat_map(|name| cache.forget(name)).collect();
            changed.extend(configs.values().flat_map(|config| cache.configure(config.clone(), now)));
            changed
        });
    }

    /// Reads the journals.
    pub fn read<T>(&self, look: impl FnOnce(&JournalCache) -> T) -> T {
        look(&self.0.cache.lock())
    }

    fn change(&self, change: impl FnOnce(&mut JournalCache, Timestamp) -> Vec<String>) {
        let touched = {
            let mut cache = self.0.cache.lock();
            let touched = change(&mut cache, self.0.clock.now());
            self.publish(&cache);
            touched
        };
        self.0.changed_domains.add(touched);
        self.0.changed.notify_one();
    }

    fn publish(&self, cache: &JournalCache) {
        let now = self.0.clock.now();
        let mut next = cache.published(now);
        for (trust_domain, foreign) in &**self.0.foreign.lock() {
            // A bundle of ours is never replaced by another's.
            next.bundles.entry(trust_domain.clone()).or_insert_with(|| foreign.published.clone());
        }
        let readiness = readiness::of_all(cache, now);
        self.0.published.send_if_modified(|current| {
            let changed = !current.same(&next);
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
        self.0.readiness.send_if_modified(|current| {
            let changed = **current != readiness;
            if changed {
                *current = Arc::new(readiness);
            }
            changed
        });
    }

    /// Publishes again whenever time alone changes a state, for as long as the process lives.
    pub async fn keep_time(&self) {
        loop {
            let next = self.read(|cache| cache.next_change(self.0.clock.now()));
            tokio::select! {
                // Also when the clock was set: what is published is what holds at that time.
                () = self.0.clock.draws_near(next.unwrap_or(Timestamp::MAX)) => self.publish(&self.0.cache.lock()),
                () = self.0.changed.notified() => {}
            }
        }
    }
}
