//! Remote trust domains: what becomes of their bundles (SPIFFE Federation). [`decide()`] takes what a TrustDomain says, what is
//! stored, the result of a poll and a time, and answers with what is to be stored, when to poll next and what to report;
//! [`trusted`] says what is handed out. Nothing here fetches or stores anything.

mod anchors;
mod candidate;
mod decide;
mod digest;
mod endpoint;
mod flag;
mod limits;
mod poll;
mod refusal;
mod schedule;
mod spec;
mod stored;
mod trust;

#[cfg(test)]
mod decide_tests;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod trust_tests;

use std::collections::BTreeSet;

pub use anchors::{SharedAnchor, shared_anchors};
pub use decide::{Decision, PollOutcome, decide};
pub use endpoint::{Endpoint, EndpointUrl, EndpointUrlError, MAX_URL_LENGTH, Profile};
pub use flag::Flag;
pub use limits::{MAX_KEPT_LENGTH, MAX_STREAM_LENGTH, Normalised, fitting_stream, normalise};
pub use poll::{Fetched, Observation, PollTarget, poll_target};
pub use refusal::{DocumentFault, FetchError, Refusal};
pub use schedule::{LONGEST_INTERVAL, SHORTEST_INTERVAL};
pub use spec::{DEFAULT_MAX_STALE, RemoteSpec};
pub use stored::{Failure, MAX_STORED_LENGTH, Origin, StoredError, StoredRemote};
pub use trust::{Trusted, trusted, trusted_until};

use crate::id::TrustDomain;

/// One remote trust domain as it is known before a decision.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// What its TrustDomain says.
    pub spec: &'a RemoteSpec,
    /// The trust domains of which this cluster is the authority: no remote may be one of them.
    pub own: &'a BTreeSet<TrustDomain>,
    /// What is stored of it.
    pub stored: Stored<'a>,
}

/// What is stored of a remote trust domain.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// Nothing yet.
    Absent,
    /// As [`StoredRemote::from_bytes`] read it.
    Read(&'a StoredRemote),
    /// Something that [`StoredRemote::from_bytes`] refused: as if absent, and reported.
    Unreadable(&'a StoredError),
}

impl<'a> Remote<'a> {
    /// What was stored, if it can be used: read, and of this trust domain.
    fn record(&self) -> Option<&'a StoredRemote> {
        match self.stored {
            Stored::Read(stored) if stored.trust_domain() == self.spec.trust_domain() => Some(stored),
            _ => None,
        }
    }

    /// Whether it claims a trust domain whose authority is here. Its bundle would let others sign for it.
    fn is_own(&self) -> bool {
        self.own.contains(self.spec.trust_domain())
    }
}
