//! What a session publishes to its workload: one value on a `watch` channel, which the Workload API and the files read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::bundle::BundleSet;
use countersign_core::entitlement::PathPattern;
use countersign_core::id::{SpiffeId, TrustDomain};
use countersign_core::key::PrivateKey;
use jiff::Timestamp;
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Whether a workload has its identity, and its credentials if so.
#[derive(Debug, Clone)]
pub enum Published {
    /// Not yet, or no longer because the issuer is away: the reason, for people.
    NotReady(Arc<str>),
    /// The issuer says that this pod has no identity: its reason.
    NoIdentity(Arc<str>),
    /// It has its identity.
    Ready(Arc<Credentials>),
}

/// One consistent set of credentials: each was verified against these bundles.
#[derive(Debug)]
pub struct Credentials {
    /// Changes whenever X509-SVIDs or bundles do, but not when only tokens were renewed.
    pub revision: u64,
    /// Changes whenever WIT-SVIDs do.
    pub wit_revision: u64,
    /// In the issuer's order; the first is the default. Not empty.
    pub svids: Vec<Svid>,
    /// The bundles of the identities' own trust domains and of those they federate with.
    pub trust: Arc<BundleSet>,
    /// What goes with some of these bundles.
    pub terms: Arc<Terms>,
}

/// What goes with the bundles of trust domains, by trust domain; nothing for most.
pub type Terms = BTreeMap<TrustDomain, DomainTerms>;

/// What goes with the bundle of a trust domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainTerms {
    /// The paths of its ids that are accepted; `None`: all.
    pub paths: Option<Vec<PathPattern>>,
    /// The `iss` of its JWT-SVIDs, where the issuer said so.
    pub jwt_issuer: Option<String>,
}

impl Credentials {
    /// Whether an id of a trusted trust domain is accepted: of a foreign one only some paths may be.
    pub fn accepts(&self, id: &SpiffeId) -> bool {
        let paths = self.terms.get(id.trust_domain()).and_then(|terms| terms.paths.as_ref());
        paths.is_none_or(|paths| paths.iter().any(|pattern| pattern.matches(id.path())))
    }
}

/// One identity's credentials.
#[derive(Debug, Clone)]
pub struct Svid {
    /// The SPIFFE ID.
    pub id: SpiffeId,
    /// The owner's hint what the identity is for; may be empty.
    pub hint: String,
    /// DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's key.
    pub key: PrivateKey,
    /// The leaf's notAfter.
    pub expires_at: Timestamp,
    /// Foreign trust domains.
    pub federates_with: Vec<TrustDomain>,
    /// JWT-SVIDs for files, by exact audience.
    pub tokens: BTreeMap<String, Zeroizing<String>>,
    /// Where the identity has WIT-SVIDs. Never in a file.
    pub wit: Option<WitState>,
}

/// Why an identity has no WIT-SVIDs.
pub(crate) const NO_WIT_SVIDS: &str =
    "this workload has no WIT-SVID: its WorkloadIdentity needs spec.wit, and its TrustDomain spec.authority.wit";
/// Why there is none of an identity that has them.
pub(crate) const NO_WIT_SVID_NOW: &str = "there is no WIT-SVID now; the agent is asking the issuer for one";

/// The WIT-SVIDs of an identity.
#[derive(Debug, Clone)]
pub struct WitState {
    /// Whether the workload gets the keys.
    pub export_key: bool,
    /// `None` while there is none, for example because the last one has expired while the issuer was away.
    pub current: Option<Wit>,
}

/// A WIT-SVID and the key that it is bound to.
#[derive(Debug, Clone)]
pub struct Wit {
    /// JWS compact serialization.
    pub token: Zeroizing<String>,
    /// Signs proofs; a new one with each WIT-SVID.
    pub key: PrivateKey,
    /// Its `exp`.
    pub expires_at: Timestamp,
}

impl Svid {
    /// Changes when its WIT-SVID does: whether the workload gets the key, and the token.
    fn wit_version(&self) -> Option<(bool, Option<&str>)> {
        let wit = self.wit.as_ref()?;
        Some((wit.export_key, wit.current.as_ref().map(|current| current.token.as_str())))
    }
}

/// The writing end of one session.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Published>,
    /// Never decreases, even when credentials are withdrawn and published again: a slow reader may miss what is between.
    revision: AtomicU64,
}

impl Publisher {
    /// A channel that is not ready, for `reason`, until something else is published.
    pub fn new(reason: &str) -> (Self, watch::Receiver<Published>) {
        let (sender, receiver) = watch::channel(Published::NotReady(reason.into()));
        (Self { sender, revision: AtomicU64::new(0) }, receiver)
    }

    /// Publishes `next` if it differs from what is published; returns whether it did.
    pub fn publish(&self, next: Published) -> bool {
        self.sender.send_if_modified(|current| {
            let next = match (&*current, next) {
                (Published::Ready(old), Published::Ready(new)) => match difference(old, &new) {
                    Difference::None => return false,
                    Difference::Tokens => Published::Ready(revised(&new, old.revision, self.wit_revision(old, &new))),
                    Difference::X509 => {
                        Published::Ready(revised(&new, self.next_revision(), self.wit_revision(old, &new)))
                    }
                },
                (Published::NotReady(old), Published::NotReady(new)) if *old == new => {
                    return false;
                }
                (Published::NoIdentity(old), Published::NoIdentity(new)) if *old == new => {
                    return false;
                }
                (_, Published::Ready(new)) => {
                    let revision = self.next_revision();
                    Published::Ready(revised(&new, revision, revision))
                }
                (_, next) => next,
            };
            *current = next;
            true
        })
    }

    fn next_revision(&self) -> u64 {
        self.revision.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The revision of WIT-SVIDs: that of before unless they differ.
    fn wit_revision(&self, old: &Credentials, new: &Credentials) -> u64 {
        let same = |a: &Svid, b: &Svid| a.id == b.id && a.hint == b.hint && a.wit_version() == b.wit_version();
        let is_same = old.svids.len() == new.svids.len() && old.svids.iter().zip(&new.svids).all(|(a, b)| same(a, b));
        if is_same { old.wit_revision } else { self.next_revision() }
    }

    /// What is published.
    pub fn current(&self) -> Published {
        self.sender.borrow().clone()
    }
}

/// How two sets of credentials differ.
enum Difference {
    None,
    /// Only in JWT-SVIDs for files, or WIT-SVIDs.
    Tokens,
    X509,
}

fn difference(old: &Credentials, new: &Credentials) -> Difference {
    let same_svid = |a: &Svid, b: &Svid| {
        a.id == b.id && a.hint == b.hint && a.chain == b.chain && a.federates_with == b.federates_with
    };
    let same_svids =
        old.svids.len() == new.svids.len() && old.svids.iter().zip(&new.svids).all(|(a, b)| same_svid(a, b));
    if !same_svids || old.trust != new.trust || old.terms != new.terms {
        return Difference::X509;
    }
    let same = |a: &Svid, b: &Svid| a.tokens == b.tokens && a.wit_version() == b.wit_version();
    let same_tokens = old.svids.iter().zip(&new.svids).all(|(a, b)| same(a, b));
    if same_tokens { Difference::None } else { Difference::Tokens }
}

fn revised(new: &Credentials, revision: u64, wit_revision: u64) -> Arc<Credentials> {
    let (svids, trust, terms) = (new.svids.clone(), Arc::clone(&new.trust), Arc::clone(&new.terms));
    Arc::new(Credentials { revision, wit_revision, svids, trust, terms })
}
