//! Renewal on request: a State with a higher `renewal` has the agent renew its credentials, and an event says when that is done.

use std::collections::BTreeSet;

use countersign_proto::issuer::v1;

use super::{Session, pod_ref};
use crate::events::PodEvent;

/// Certificates that were asked for and are not issued yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Renewing {
    renewal: u64,
    /// The ids whose certificates are missing.
    missing: BTreeSet<String>,
}

impl Renewing {
    /// What `next` asks for beyond `before`, which the agent has. None of an agent that has no State yet: it makes new keys, or asks
    /// for what it needs.
    fn of(before: Option<&v1::State>, next: &v1::State) -> Option<Self> {
        before.filter(|before| before.renewal < next.renewal)?;
        let missing = next.identities.iter().map(|identity| identity.spiffe_id.clone()).collect();
        Some(Self { renewal: next.renewal, missing })
    }

    /// A certificate was issued; whether it was the last one that was missing.
    fn is_complete_with(&mut self, spiffe_id: &str) -> bool {
        self.missing.remove(spiffe_id) && self.missing.is_empty()
    }
}

impl Session<'_> {
    /// A State is about to be sent.
    pub(super) fn begin_renewal(&mut self, state: &v1::State) {
        if let Some(renewing) = Renewing::of(self.last_sent.as_ref(), state) {
            self.renewing = Some(renewing);
        }
    }

    /// A certificate was issued.
    pub(super) fn renewed(&mut self, spiffe_id: &str) {
        if let Some(renewing) = self.renewing.take_if(|renewing| renewing.is_complete_with(spiffe_id)) {
            let event = PodEvent::renewed(renewing.renewal);
            self.context.events.send(pod_ref(&self.pod), &self.name, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(renewal: u64, ids: &[&str]) -> v1::State {
        let identity = |id: &&str| v1::Identity { spiffe_id: (*id).to_owned(), ..v1::Identity::default() };
        v1::State { renewal, identities: ids.iter().map(identity).collect(), ..v1::State::default() }
    }

    #[test]
    fn a_renewal_is_complete_once_every_certificate_was_issued_anew() {
        let mut renewing = Renewing::of(Some(&state(0, &["a"])), &state(5, &["a", "b"])).unwrap();
        assert!(!renewing.is_complete_with("a") && !renewing.is_complete_with("a"));
        assert!(renewing.is_complete_with("b"));
        assert!(!renewing.is_complete_with("b"), "it is said once");
    }

    #[test]
    fn only_a_higher_value_on_the_same_stream_asks_for_anything() {
        for (before, next) in [(5, 5), (5, 4), (5, 0)] {
            assert_eq!(Renewing::of(Some(&state(before, &["a"])), &state(next, &["a"])), None);
        }
        assert_eq!(Renewing::of(None, &state(5, &["a"])), None);
    }
}
