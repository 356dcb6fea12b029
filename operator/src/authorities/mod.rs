//! The authorities of every trust domain and of the control plane. Their journals live in Secrets; every replica watches
//! these, and publishes what signs now and what is trusted now. States follow from (journal, time), so all replicas
//! switch together.

pub mod book;
pub mod store;

use std::{collections::HashMap, sync::Arc};

use countersign_core::{id::TrustDomain, jwt::JwtAuthority, x509::X509Authority};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use self::book::{Book, DomainFacts, Problem, StoredSecret};
use crate::clock::Clock;
use countersign_index::SharedIndex;

/// Everything that signs and is trusted at a moment, ready to use.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// By trust domain.
    pub domains: HashMap<TrustDomain, Arc<DomainAuthority>>,
    /// What signs serving certificates.
    pub control_plane: Option<Arc<X509Authority>>,
    /// The control plane's current and next roots, ASN.1 DER.
    pub control_plane_roots: Vec<Vec<u8>>,
}

/// A trust domain's authorities at a moment.
#[derive(Clone, Debug)]
pub struct DomainAuthority {
    /// What signs X509-SVIDs.
    pub x509: Option<Arc<X509Authority>>,
    /// What signs JWT-SVIDs, and when it leaves the bundle: nothing it signs may live longer.
    pub jwt: Option<(Arc<JwtAuthority>, Timestamp)>,
    /// The `iss` of its JWT-SVIDs.
    pub jwt_issuer: Option<String>,
    /// The bundle document, JSON.
    pub bundle: Arc<[u8]>,
    /// The bundle's sequence.
    pub sequence: u64,
    /// Subject key ids of X.509 authorities whose leaves must be renewed at once.
    pub tainted: Vec<Vec<u8>>,
}

impl Published {
    /// Whether both say the same to sessions.
    fn same(&self, other: &Self) -> bool {
        let control_plane = |published: &Self| {
            published.control_plane.as_ref().map(|authority| authority.certificate().subject_key_id().to_vec())
        };
        self.control_plane_roots == other.control_plane_roots
            && control_plane(self) == control_plane(other)
            && self.domains.len() == other.domains.len()
            && self.domains.iter().all(|(name, domain)| other.domains.get(name).is_some_and(|other| domain.same(other)))
    }
}

impl DomainAuthority {
    fn same(&self, other: &Self) -> bool {
        let signers = |domain: &Self| {
            let x509 = domain.x509.as_ref().map(|authority| authority.certificate().subject_key_id().to_vec());
            (x509, domain.jwt.as_ref().map(|(authority, end)| (authority.kid().to_owned(), *end)))
        };
        self.bundle == other.bundle
            && self.tainted == other.tainted
            && self.jwt_issuer == other.jwt_issuer
            && signers(self) == signers(other)
    }
}

/// The book of journals as the parts of the process share it, and what is published of it.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    book: Mutex<Book>,
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
        let book = Mutex::new(Book::new(cluster));
        Self(Arc::new(Inner { book, published, changed: Notify::new(), clock, index }))
    }

    /// What is published, now and from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.0.published.subscribe()
    }

    /// A journal's Secret as it is stored now.
    pub fn apply_secret(&self, name: &str, secret: StoredSecret) {
        self.change(|book, now| book.apply_secret(name, secret, now));
    }

    /// A journal's Secret is gone.
    pub fn remove_secret(&self, name: &str) {
        self.change(|book, now| book.remove_secret(name, now));
    }

    /// Every journal's Secret was listed.
    pub fn complete(&self) {
        self.change(Book::complete);
    }

    /// What a TrustDomain says of its authorities.
    pub fn configure(&self, facts: DomainFacts) {
        self.change(|book, now| book.configure(facts, now));
    }

    /// A TrustDomain is gone, or is not the one that holds its trust domain.
    pub fn forget(&self, domain: &str) {
        self.change(|book, _| book.forget(domain));
    }

    /// Looks at the book.
    pub fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.0.book.lock())
    }

    /// What is wrong with a TrustDomain's journal as this replica sees it.
    #[must_use]
    pub fn problem(&self, domain: &str) -> Option<Problem> {
        self.read(|book| book.problem(domain).cloned())
    }

    fn change(&self, change: impl FnOnce(&mut Book, Timestamp) -> Vec<String>) {
        let (touched, news) = {
            let mut book = self.0.book.lock();
            let touched = change(&mut book, self.0.clock.now());
            (touched, self.publish(&book))
        };
        self.tell(news);
        for domain in touched {
            self.0.index.touch_domain(&domain);
        }
        self.0.changed.notify_one();
    }

    /// Whether that differs from what was published before.
    fn publish(&self, book: &Book) -> bool {
        let next = book.published(self.0.clock.now());
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
            let next = self.read(|book| book.next_change(self.0.clock.now()));
            tokio::select! {
                // Also when the clock was set: what is published is what is so at the time.
                () = self.0.clock.draws_near(next.unwrap_or(Timestamp::MAX)) => {
                    let news = self.publish(&self.0.book.lock());
                    self.tell(news);
                }
                () = self.0.changed.notified() => {}
            }
        }
    }
}
