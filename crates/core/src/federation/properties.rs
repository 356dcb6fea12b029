//! What must hold whatever a TrustDomain says, whatever polls bring, and whenever.

use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::{Config, TestCaseError};

use super::fixtures::{PEER, at, certificate, document, domain, remote, server_id, spiffe, web};
use super::{
    Decision, FetchError, Fetched, Flag, LONGEST_INTERVAL, MAX_STORED_LENGTH, Observation, PollOutcome, PollTarget,
    RemoteSpec, SHORTEST_INTERVAL, StoredRemote, decide, poll_target, trusted,
};

/// A document of some keys, or none at all.
#[derive(Clone, Debug)]
enum Document {
    Bundle { keys: Vec<u8>, sequence: Option<u64> },
    OfOtherDomain,
    Garbage,
}

/// What happens at a visit.
#[derive(Clone, Debug)]
enum Event {
    Nothing,
    /// The TrustDomain is changed.
    Spec {
        endpoint: u8,
        bootstrap: Option<(Document, bool)>,
    },
    /// A poll brings a document.
    Poll {
        document: Document,
        is_right_server: bool,
    },
    /// A poll ends that began at the visit before.
    LatePoll(Document),
    PollFails,
}

impl Document {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bundle { keys, sequence } => document(keys, *sequence),
            Self::OfOtherDomain => {
                super::fixtures::bundle(PEER, &[&certificate("other.example", 1, 30)], &[]).to_json()
            }
            Self::Garbage => b"{".to_vec(),
        }
    }
}

fn documents() -> impl Strategy<Value = Document> {
    let bundle = (vec(1_u8..5, 0..4), option::weighted(0.9, 0_u64..6));
    prop_oneof![
        8 => bundle.prop_map(|(keys, sequence)| Document::Bundle { keys, sequence }),
        1 => Just(Document::OfOtherDomain),
        1 => Just(Document::Garbage),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let bootstrap = option::weighted(0.8, (documents(), prop_oneof![4 => Just(false), 1 => Just(true)]));
    prop_oneof![
        2 => Just(Event::Nothing),
        3 => (0_u8..4, bootstrap).prop_map(|(endpoint, bootstrap)| Event::Spec { endpoint, bootstrap }),
        8 => (documents(), prop_oneof![9 => Just(true), 1 => Just(false)])
            .prop_map(|(document, is_right_server)| Event::Poll { document, is_right_server }),
        1 => documents().prop_map(Event::LatePoll),
        2 => Just(Event::PollFails),
    ]
}

/// Seconds until the next visit: of polls, or of a long outage.
fn waits() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0_i64..4_000, 1 => 0_i64..3_000_000]
}

fn spec(endpoint: u8, bootstrap: Option<&(Document, bool)>) -> RemoteSpec {
    let endpoint = match endpoint {
        0 => None,
        1 => Some(web()),
        _ => Some(spiffe()),
    };
    let spec = RemoteSpec::new(domain(PEER), endpoint);
    match bootstrap {
        Some((document, replace)) => spec.with_bootstrap(&document.bytes(), *replace),
        None => spec,
    }
}

/// A TrustDomain over time.
struct Run {
    spec: RemoteSpec,
    stored: Option<StoredRemote>,
    target: Option<PollTarget>,
    now: Timestamp,
}

impl Run {
    fn new() -> Self {
        let bootstrap = (Document::Bundle { keys: vec![1], sequence: Some(2) }, false);
        Self { spec: spec(2, Some(&bootstrap)), stored: None, target: None, now: at(0) }
    }

    fn observation(&self, event: &Event) -> Option<Observation> {
        let current = || poll_target(&remote(&self.spec, self.stored.as_ref()), self.now);
        let fetched = |document: &Document| Fetched { document: document.bytes(), server_id: server_id(&self.spec) };
        match event {
            Event::Nothing | Event::Spec { .. } => None,
            Event::Poll { document, is_right_server } => {
                let target = current()?;
                let server_id = if *is_right_server { server_id(&self.spec) } else { None };
                Some(Observation { target, result: Ok(Fetched { server_id, ..fetched(document) }) })
            }
            Event::LatePoll(document) => {
                let server_id = Some(super::fixtures::ENDPOINT_ID.parse().unwrap());
                let fetched = Fetched { document: document.bytes(), server_id };
                Some(Observation { target: self.target.clone()?, result: Ok(fetched) })
            }
            Event::PollFails => Some(Observation { target: current()?, result: Err(FetchError::Timeout) }),
        }
    }

    fn visit(&mut self, wait: i64, event: &Event, jitter: f64) -> Result<(), TestCaseError> {
        self.now += SignedDuration::from_secs(wait);
        if let Event::Spec { endpoint, bootstrap } = event {
            self.spec = spec(*endpoint, bootstrap.as_ref());
        }
        let observation = self.observation(event);
        let before = self.stored.take();
        let decide = |stored: Option<&StoredRemote>, observation| {
            decide(&remote(&self.spec, stored), observation, self.now, jitter)
        };
        let decision = decide(before.as_ref(), observation.as_ref());
        self.sequences_do_not_fall(before.as_ref(), &decision)?;
        self.next_poll_is_within_bounds(&decision)?;
        let stored = &decision.stored;

        // Whatever is refused changes nothing of what is trusted.
        let without = decide(before.as_ref(), None);
        if matches!(decision.poll, None | Some(PollOutcome::Refused(_) | PollOutcome::Outdated)) {
            prop_assert_eq!(&stored.kept, &without.stored.kept);
            let of = |stored| trusted(&remote(&self.spec, Some(stored)), self.now);
            prop_assert_eq!(of(stored), of(&without.stored));
        }
        // Nothing is handed out exactly if a flag gives the reason.
        let handed_out = trusted(&remote(&self.spec, Some(stored)), self.now);
        prop_assert_eq!(handed_out.bundle.is_none(), decision.flags.iter().any(Flag::ends_trust));
        prop_assert_eq!(handed_out.next_change, decision.next_change);
        prop_assert!(decision.next_change.is_none_or(|change| change > self.now));
        // Who decides again decides nothing else.
        let again = decide(Some(stored), None);
        prop_assert!(!again.is_changed);
        prop_assert_eq!((&again.flags, again.next_poll), (&decision.flags, decision.next_poll));
        // What is stored is read as it was.
        let bytes = stored.to_bytes();
        prop_assert!(bytes.len() <= MAX_STORED_LENGTH);
        prop_assert_eq!(&StoredRemote::from_bytes(&domain(PEER), &bytes).unwrap(), stored);

        self.target = poll_target(&remote(&self.spec, Some(stored)), self.now);
        self.stored = Some(decision.stored);
        Ok(())
    }

    /// Unless the TrustDomain replaces everything, a lower sequence never replaces a higher one.
    fn sequences_do_not_fall(&self, before: Option<&StoredRemote>, after: &Decision) -> Result<(), TestCaseError> {
        let Some(before) = before else { return Ok(()) };
        let after = &after.stored;
        prop_assert!(after.highest_sequence >= before.highest_sequence);
        prop_assert!(after.revision() >= before.revision());
        let keys = |stored: &StoredRemote| {
            let bundle = stored.kept.as_ref().map(|kept| &kept.bundle);
            bundle.map(|bundle| (bundle.x509_authorities.clone(), bundle.jwt_authorities.clone()))
        };
        let is_other = keys(after) != keys(before);
        prop_assert_eq!(is_other, after.revision() != before.revision());
        let replaces = self.spec.bootstrap().is_some_and(|bootstrap| bootstrap.replace);
        if replaces && after.bootstrap != before.bootstrap {
            return Ok(());
        }
        prop_assert!(after.sequence_floor >= before.sequence_floor);
        if is_other && after.sequence().is_some() {
            prop_assert!(after.sequence() >= before.sequence_floor);
        }
        Ok(())
    }

    fn next_poll_is_within_bounds(&self, decision: &Decision) -> Result<(), TestCaseError> {
        let Some(next) = decision.next_poll else { return Ok(()) };
        let after = |span: std::time::Duration| self.now + SignedDuration::try_from(span).unwrap();
        prop_assert!(next <= after(LONGEST_INTERVAL), "{next}");
        if let Some(polled_at) = decision.stored.polled_at() {
            prop_assert!(next >= polled_at + SignedDuration::try_from(SHORTEST_INTERVAL).unwrap());
        }
        if matches!(decision.poll, Some(PollOutcome::Updated | PollOutcome::Confirmed | PollOutcome::Refused(_))) {
            prop_assert!(next >= after(SHORTEST_INTERVAL), "{next}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(Config::with_cases(300))]

    #[test]
    fn whatever_comes_rollback_is_refused_and_what_is_refused_changes_nothing(
        visits in vec((waits(), events(), any::<f64>()), 1..16),
    ) {
        let mut run = Run::new();
        run.visit(0, &Event::Nothing, 0.0)?;
        for (wait, event, jitter) in visits {
            run.visit(wait, &event, jitter)?;
        }
    }

    // Not even arbitrary bytes are taken for what was stored, nor do they end the process.
    #[test]
    fn stored_bytes_that_were_changed_are_refused_or_read_as_they_are(position in any::<u16>(), byte in any::<u8>()) {
        let run = {
            let mut run = Run::new();
            run.visit(0, &Event::Nothing, 0.0)?;
            run
        };
        let mut bytes = run.stored.unwrap().to_bytes();
        let position = usize::from(position) % bytes.len();
        bytes[position] = byte;
        if let Ok(stored) = StoredRemote::from_bytes(&domain(PEER), &bytes) {
            prop_assert_eq!(stored.to_bytes(), bytes);
        }
    }
}
