//! Which state a session is sent, and when: once at its start, then after each change. Changes that come together are sent
//! together.

use std::time::Duration;

use countersign_core::entitlement::{Entitled, MAX_IDENTITIES};
use countersign_index::Entitlement;
use countersign_proto::issuer::v1;
use jiff::SignedDuration;
use tokio::time::Instant;

use super::{Session, pod_ref};
use crate::{acknowledgements::bundles_of, error::IssuerError, events::PodEvent, state};

/// A change is sent within this time, at random: a bundle that changes for ten thousand streams does not cause ten thousand
/// pushes at the same instant, and further changes are sent along with it.
const COALESCING: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(100);

impl Session<'_> {
    /// Something that the state depends on has changed. A pod without identity waits for one, and its state is due at once; that of
    /// others within [`COALESCING`].
    pub(super) fn schedule_push(&mut self) -> Result<(), IssuerError> {
        if matches!(*self.subscription.current(), Entitlement::Gone) {
            return Err(self.gone());
        }
        let has_identity = self.last_sent.as_ref().is_some_and(|last_sent| !last_sent.identities.is_empty());
        let wait = if has_identity { rand::random_range(COALESCING) } else { Duration::ZERO };
        let at = Instant::now() + wait;
        self.state_due_at = Some(self.state_due_at.map_or(at, |earlier| earlier.min(at)));
        Ok(())
    }

    /// The state where it differs from the one that was sent last.
    pub(super) fn changed_state(&mut self) -> Result<Option<v1::State>, IssuerError> {
        let entitlement = self.subscription.current();
        if matches!(*entitlement, Entitlement::Gone) {
            return Err(self.gone());
        }
        let mut state = state::compose(&entitlement, self.published.current());
        if let Some(last_sent) = &self.last_sent {
            state.generation = last_sent.generation;
        }
        Ok((self.last_sent.as_ref() != Some(&state)).then_some(state))
    }

    /// The state as it is pushed now; counts it, records it, and answers the request that came with Hello.
    pub(super) fn push_state(&mut self, mut state: v1::State) -> v1::State {
        state.generation = self.context.next_generation();
        self.context.metrics.states_pushed.inc();
        let event = match state.identities.first() {
            Some(identity) => PodEvent::Identity(format!("the pod has identity {}", identity.spiffe_id)),
            None => PodEvent::NoIdentity(state.reason.clone()),
        };
        self.context.events.send(pod_ref(&self.pod), &self.name, event);
        self.report_left_out();
        self.record_served(&state);
        // An agent that comes from another stream may have something that was issued a moment ago.
        let longest =
            state.identities.iter().map(|identity| identity.x509_ttl.max(identity.jwt_ttl).max(identity.wit_ttl)).max();
        if let (Some(longest), None) = (longest, &self.last_sent) {
            let until = self.context.clock.now().saturating_add(SignedDuration::from_secs(longest.into()));
            until.into_iter().for_each(|until| self.registration.record().set_in_use_until(until));
        }
        self.record_bundles(&state);
        self.begin_renewal(&state);
        self.last_sent = Some(state.clone());
        if let Some(request) = self.initial_request.take() {
            // Its token was verified a moment ago, with Hello.
            self.answer_x509(request, Instant::now());
        }
        state
    }

    /// Sends an event where the session is selected by more WorkloadIdentities than it may have.
    fn report_left_out(&self) {
        match &*self.subscription.current() {
            Entitlement::Entitled(entitled) if entitled.len() >= MAX_IDENTITIES => {}
            _ => return,
        }
        let left_out = self.context.index.read(|index| index.left_out(&self.pod.pod_uid, &self.name));
        if !left_out.is_empty() {
            let event = PodEvent::too_many_identities(MAX_IDENTITIES, &left_out);
            self.context.events.send(pod_ref(&self.pod), &self.name, event);
        }
    }

    /// Records which bundles this stream is sent.
    fn record_bundles(&mut self, state: &v1::State) {
        let bundles = bundles_of(state);
        let acks = &self.registration.record().acks;
        if acks.is_able() {
            self.pushed.push(state.generation, bundles.clone());
        }
        acks.set_sent(bundles);
    }

    /// Records which WorkloadIdentities this stream serves.
    fn record_served(&self, state: &v1::State) {
        let entitlement = self.subscription.current();
        let Entitlement::Entitled(entitled) = &*entitlement else {
            return self.registration.record().set_served([].into_iter());
        };
        let is_served = |one: &&Entitled| {
            let id = one.id.to_string();
            state.identities.iter().any(|identity| identity.spiffe_id == id)
        };
        self.registration.record().set_served(entitled.iter().filter(is_served).map(|one| &one.identity));
    }
}
