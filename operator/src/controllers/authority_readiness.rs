//! Whether a trust domain's authority can be used: a WorkloadIdentity is Ready only where it is. TrustDomains are told of
//! first; this passes on what changed.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::authorities::{Authorities, DomainAuthority};
use countersign_core::id::TrustDomain;

/// How the authority of a trust domain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityReadiness {
    /// It signs, wherever it is loaded.
    Yes,
    /// It is not there yet.
    NotYet,
    /// It needs a person: what is wrong with its journal.
    No(String),
}

impl AuthorityReadiness {
    /// Of the TrustDomain `name`, which holds `trust_domain`.
    #[must_use]
    pub fn of(authorities: &Authorities, name: &str, trust_domain: &TrustDomain) -> Self {
        // Replicas that had loaded the journal before sign on; others, and this one after a restart, cannot.
        if let Some(problem) = authorities.problem(name) {
            return Self::No(problem.to_string());
        }
        let published = authorities.subscribe();
        let signs = |domain: &DomainAuthority| domain.x509.is_some();
        let signs = published.borrow().domains.get(trust_domain).is_some_and(|domain| signs(domain));
        if signs { Self::Yes } else { Self::NotYet }
    }
}

/// Where the controller of TrustDomains leaves what it found, for that of WorkloadIdentities.
#[derive(Debug)]
pub struct AuthorityReadinessFeed {
    last: Mutex<HashMap<String, AuthorityReadiness>>,
    news: mpsc::UnboundedSender<String>,
}

impl AuthorityReadinessFeed {
    /// Nothing is known; the receiver gets the names of TrustDomains whose authority changed in this.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (news, receiver) = mpsc::unbounded_channel();
        (Self { last: Mutex::default(), news }, receiver)
    }

    /// A TrustDomain's authority is so now; `None`: it has none to speak of.
    pub fn note(&self, name: &str, usable: Option<AuthorityReadiness>) {
        let mut last = self.last.lock();
        let changed = match usable {
            Some(usable) if last.get(name) == Some(&usable) => false,
            Some(usable) => {
                last.insert(name.to_owned(), usable);
                true
            }
            None => last.remove(name).is_some(),
        };
        if changed {
            // Nobody listens only while the process ends.
            let _ = self.news.send(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AuthorityReadiness, AuthorityReadinessFeed};

    #[test]
    fn only_what_changed_is_passed_on() {
        let (domains, mut news) = AuthorityReadinessFeed::new();
        let mut told = |usable| {
            domains.note("a", usable);
            news.try_recv().is_ok()
        };
        assert!(told(Some(AuthorityReadiness::NotYet)) && !told(Some(AuthorityReadiness::NotYet)));
        assert!(told(Some(AuthorityReadiness::Yes)) && !told(Some(AuthorityReadiness::Yes)));
        assert!(told(Some(AuthorityReadiness::No("damaged".to_owned()))));
        assert!(told(None) && !told(None));
    }
}
