//! The authorities of every trust domain and of the control plane. Their journals live in Secrets; every replica watches
//! these, and publishes what signs now and what is trusted now. States follow from (journal, time), so all replicas
//! switch together.

pub mod journal_cache;
pub mod store;

use std::sync::Arc;

use countersign_issuer::published::Published;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use self::journal_cache::{AuthorityConfig, JournalCache, Problem, StoredSecret};
use countersign_index::SharedIndex;
use countersign_runtime::clock::Clock;

/// The cache of journals as the parts of the process share it, and what is published of it.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Mutex<JournalCache>,
    published: watch::Sender<Arc<Published>>,
    changed: Notify,
    clock: Clock,
    index: SharedIndex,
}

impl Authorities {
    /// Nothing known yet; `cluster` is the uid of the namespace kube-system.
    #[must_use]
    pub fn new(cluster: String, clock: Clock, index: SharedIndex) -> Self {
        let (published, _) = watch::channel(Arc::default());
        let cache = Mutex::new(JournalCache::new(cluster));
        Self(Arc::new(Inner { cache, published, changed: Notify::new(), clock, index }))
    }

    /// What is published, now and from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.0.published.subscribe()
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

    /// What a TrustDomain says of its authorities.
    pub fn configure(&self, facts: AuthorityConfig) {
        self.change(|cache, now| cache.configure(facts, now));
    }

    /// A TrustDomain is gone, or is not the one that holds its trust domain.
    pub fn forget(&self, domain: &str) {
        self.change(|cache, _| cache.forget(domain));
    }

    /// Looks at the cache.
    pub fn read<T>(&self, look: impl FnOnce(&JournalCache) -> T) -> T {
        look(&self.0.cache.lock())
    }

    /// What is wrong with a TrustDomain's journal as this replica sees it.
    #[must_use]
    pub fn problem(&self, domain: &str) -> Option<Problem> {
        self.read(|cache| cache.problem(domain).cloned())
    }

    fn change(&self, change: impl FnOnce(&mut JournalCache, Timestamp) -> Vec<String>) {
        let (touched, news) = {
            let mut cache = self.0.cache.lock();
            let touched = change(&mut cache, self.0.clock.now());
            (touched, self.publish(&cache))
        };
        self.tell(news);
        for domain in touched {
            self.0.index.touch_domain(&domain);
        }
        self.0.changed.notify_one();
    }

    /// Whether that differs from what was published before.
    fn publish(&self, cache: &JournalCache) -> bool {
        let next = cache.published(self.0.clock.now());
        self.0.published.send_if_modified(|current| {
            let news = !current.same(&next);
            if news {
                *current = Arc::new(next);
            }
            news
        })
    }

    /// Sessions look at what is published through the index's subscriptions, each its own: one that all of them wait for
    /// would have a lock that all of them take.
    fn tell(&self, news: bool) {
        if news {
            self.0.index.wake_sessions();
        }
    }

    /// Publishes anew whenever time alone changes a state, for as long as the process lives.
    pub async fn keep_time(&self) {
        loop {
            let next = self.read(|cache| cache.next_change(self.0.clock.now()));
            tokio::select! {
                // Also when the clock was set: what is published is what is so at the time.
                () = self.0.clock.draws_near(next.unwrap_or(Timestamp::MAX)) => {
                    let news = self.publish(&self.0.cache.lock());
                    self.tell(news);
                }
                () = self.0.changed.notified() => {}
            }
        }
    }
}
