//! Acknowledgements: which bundles are in effect at the agents. An agent is believed only about what its stream was sent: a
//! higher sequence counts as the one that was sent, so that no rotation depends on a claim; the claim is reported apart
//! (`docs/adr/0025-acknowledgements.md`).

use std::{collections::VecDeque, sync::Arc};

use countersign_core::id::TrustDomain;
use countersign_proto::issuer::{MAX_ACK_SEQUENCES, v1};
use jiff::Timestamp;
use parking_lot::Mutex;

/// States that a stream may acknowledge. An agent that lags behind by more acknowledges a later one.
const MAX_PUSHED: usize = 32;

/// A trust domain's bundle, by its sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleSequence {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Of its bundle.
    pub sequence: u64,
}

/// A bundle that a stream was sent, and what its agent says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentBundle {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The sequence that is in effect at the agent, as far as that is known.
    pub in_effect: Option<u64>,
    /// A higher sequence than was sent, if the agent claims one.
    pub claimed: Option<u64>,
}

/// What an agent acknowledged last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Of the State.
    pub generation: u64,
    /// When it arrived.
    pub at: Timestamp,
    /// The bundles that are in effect at the agent, at most with the sequence that the State had.
    pub in_effect: Vec<BundleSequence>,
    /// Higher sequences than the State had, as the agent claims them. No rotation depends on them, but they may be a sign that
    /// this replica lags behind, or that a journal was restored.
    pub ahead: Vec<BundleSequence>,
}

/// The bundles that a stream was sent, and what its agent acknowledged.
#[derive(Debug)]
pub struct AckRecord {
    able: bool,
    state: Mutex<RecordState>,
}

#[derive(Debug, Default)]
struct RecordState {
    sent: Arc<[BundleSequence]>,
    acknowledgement: Option<Acknowledgement>,
}

impl AckRecord {
    /// Of a stream that was sent nothing yet; `able`: its agent acknowledges.
    #[must_use]
    pub fn new(able: bool) -> Self {
        Self { able, state: Mutex::default() }
    }

    /// Whether its agent acknowledges.
    #[must_use]
    pub fn is_able(&self) -> bool {
        self.able
    }

    /// The stream was sent these bundles, and no others. A bundle that was withdrawn is in effect no longer.
    pub fn set_sent(&self, sent: Arc<[BundleSequence]>) {
        let mut state = self.state.lock();
        if let Some(acknowledgement) = &mut state.acknowledgement {
            acknowledgement.in_effect.retain(|one| sequence_of(&sent, &one.trust_domain).is_some());
            acknowledgement.ahead.retain(|one| sequence_of(&sent, &one.trust_domain).is_some());
        }
        state.sent = sent;
    }

    /// Its agent acknowledged. A State that was pushed since may have withdrawn bundles.
    pub fn set_acknowledged(&self, mut acknowledgement: Acknowledgement) {
        let mut state = self.state.lock();
        acknowledgement.in_effect.retain(|one| sequence_of(&state.sent, &one.trust_domain).is_some());
        acknowledgement.ahead.retain(|one| sequence_of(&state.sent, &one.trust_domain).is_some());
        state.acknowledgement = Some(acknowledgement);
    }

    /// What its agent acknowledged last.
    #[must_use]
    pub fn acknowledgement(&self) -> Option<Acknowledgement> {
        self.state.lock().acknowledgement.clone()
    }

    /// The bundles that it was sent.
    #[must_use]
    pub fn sent(&self) -> Vec<SentBundle> {
        let state = self.state.lock();
        let acknowledgement = state.acknowledgement.as_ref();
        let sent_bundle = |BundleSequence { trust_domain, .. }: &BundleSequence| SentBundle {
            trust_domain: trust_domain.clone(),
            in_effect: acknowledgement.and_then(|ack| sequence_of(&ack.in_effect, trust_domain)),
            claimed: acknowledgement.and_then(|ack| sequence_of(&ack.ahead, trust_domain)),
        };
        state.sent.iter().map(sent_bundle).collect()
    }
}

/// The States that a stream was sent and may still acknowledge.
#[derive(Debug, Default)]
pub(crate) struct PushedStates {
    /// In the order of their generations; the first may be the one that was acknowledged last.
    states: VecDeque<PushedState>,
    /// The newest generation that is not among them any more.
    forgotten: Option<u64>,
}

#[derive(Debug)]
struct PushedState {
    generation: u64,
    bundles: Arc<[BundleSequence]>,
}

impl PushedStates {
    /// A State was pushed.
    pub(crate) fn push(&mut self, generation: u64, bundles: Arc<[BundleSequence]>) {
        self.states.push_back(PushedState { generation, bundles });
        while self.states.len() > MAX_PUSHED {
            self.forget_first();
        }
    }

    /// What `ack` says, if it fits what was pushed; `None` if it is of a State that was pushed too long ago.
    ///
    /// # Errors
    /// What does not fit: nothing of it counts.
    pub(crate) fn acknowledge(
        &mut self,
        ack: &v1::Ack,
        now: Timestamp,
    ) -> Result<Option<Acknowledgement>, &'static str> {
        if ack.sequences.len() > MAX_ACK_SEQUENCES {
            return Err("an Ack has at most 200 sequences");
        }
        if self.forgotten.is_some_and(|forgotten| ack.generation <= forgotten) {
            return Ok(None);
        }
        let position = self.states.iter().position(|state| state.generation == ack.generation);
        let position = position.ok_or("the Ack is of a State that was not sent on this stream")?;
        let acknowledgement = self.states.get(position).map(|state| state.acknowledged(ack, now)).transpose()?;
        for _ in 0..position {
            self.forget_first();
        }
        Ok(acknowledgement)
    }

    fn forget_first(&mut self) {
        self.forgotten = self.states.pop_front().map(|state| state.generation).or(self.forgotten);
    }
}

impl PushedState {
    fn acknowledged(&self, ack: &v1::Ack, now: Timestamp) -> Result<Acknowledgement, &'static str> {
        let (mut in_effect, mut ahead): (Vec<BundleSequence>, _) = (Vec::new(), Vec::new());
        for v1::BundleSequence { trust_domain, sequence: claimed } in &ack.sequences {
            let sent = self.bundles.iter().find(|one| one.trust_domain.as_str() == trust_domain);
            let sent = sent.ok_or("the Ack has a trust domain that is not in its State")?;
            if sequence_of(&in_effect, &sent.trust_domain).is_some() {
                return Err("the Ack has a trust domain twice");
            }
            let with = |sequence| BundleSequence { trust_domain: sent.trust_domain.clone(), sequence };
            in_effect.push(with(sent.sequence.min(*claimed)));
            if *claimed > sent.sequence {
                ahead.push(with(*claimed));
            }
        }
        Ok(Acknowledgement { generation: self.generation, at: now, in_effect, ahead })
    }
}

/// The bundles of a State.
pub(crate) fn bundles_of(state: &v1::State) -> Arc<[BundleSequence]> {
    let parsed = state.bundles.iter().filter_map(|bundle| {
        Some(BundleSequence { trust_domain: bundle.trust_domain.parse().ok()?, sequence: bundle.sequence })
    });
    parsed.collect()
}

fn sequence_of(bundles: &[BundleSequence], trust_domain: &TrustDomain) -> Option<u64> {
    bundles.iter().find(|one| one.trust_domain == *trust_domain).map(|one| one.sequence)
}

#[cfg(test)]
pub(crate) mod tests;
