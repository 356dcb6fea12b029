//! Whether a TrustDomain's authority can be used: a WorkloadIdentity is Ready only where it can.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::journal_cache::JournalCache;

/// The state of a TrustDomain's authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityReadiness {
    /// It signs, wherever it is loaded.
    Ready,
    /// It is not there yet.
    NotYet,
    /// It requires manual intervention: what is wrong with its journal.
    Stalled(String),
}

/// The state of each authority, by its TrustDomain's name.
pub type AuthorityReadinessMap = BTreeMap<String, AuthorityReadiness>;

/// The state of all configured authorities at `now`. One that signs nothing for a moment, since it was tainted or revoked and its
/// successor has not been written, is as ready as its journal says: nothing is to be written to every object for that.
pub(super) fn of_all(cache: &JournalCache, now: Timestamp) -> AuthorityReadinessMap {
    let of = |name: &str| {
        // Replicas that had loaded the journal before sign on; others, and this one after a restart, cannot.
        if let Some(problem) = cache.problem(name) {
            return AuthorityReadiness::Stalled(problem.to_string());
        }
        if cache.is_signing(name, now) { AuthorityReadiness::Ready } else { AuthorityReadiness::NotYet }
    };
    cache.configured().map(|config| (config.name.clone(), of(&config.name))).collect()
}

/// The names of which the state differs.
#[must_use]
pub fn changes(before: &AuthorityReadinessMap, after: &AuthorityReadinessMap) -> Vec<String> {
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::{AuthorityReadiness, changes};

    #[test]
    fn only_what_changed_is_passed_on() {
        let map = |states: &[(&str, AuthorityReadiness)]| {
            states.iter().map(|(name, state)| ((*name).to_owned(), state.clone())).collect()
        };
        let before = map(&[("a", AuthorityReadiness::NotYet), ("b", AuthorityReadiness::Ready)]);
        assert!(changes(&before, &before).is_empty());
        let stalled = AuthorityReadiness::Stalled("damaged".to_owned());
        let after = map(&[("a", AuthorityReadiness::Ready), ("b", AuthorityReadiness::Ready), ("c", stalled)]);
        assert_eq!(changes(&before, &after), ["a", "c"]);
        assert_eq!(changes(&after, &before), ["a", "c"]);
    }
}
