//! What counts as acknowledged, and what is refused.

use super::{AckRecord, Acknowledgement, BundleSequence, MAX_PUSHED, PushedStates, SentBundle};
use crate::record::{AgentInfo, StreamRecord};
use countersign_core::id::TrustDomain;
use countersign_proto::issuer::{ACK, MAX_ACK_SEQUENCES, v1};
use jiff::Timestamp;
use std::sync::Arc;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn domain(name: &str) -> TrustDomain {
    name.parse().expect("a name")
}

fn bundles(bundles: &[(&str, u64)]) -> Arc<[BundleSequence]> {
    bundles.iter().map(|&(name, sequence)| BundleSequence { trust_domain: domain(name), sequence }).collect()
}

fn ack(generation: u64, sequences: &[(&str, u64)]) -> v1::Ack {
    let sequence = |&(name, sequence): &(&str, u64)| v1::BundleSequence { trust_domain: name.to_owned(), sequence };
    v1::Ack { generation, sequences: sequences.iter().map(sequence).collect() }
}

fn pushed(states: &[(u64, &[(&str, u64)])]) -> PushedStates {
    let mut pushed = PushedStates::default();
    for (generation, sent) in states {
        pushed.push(*generation, bundles(sent));
    }
    pushed
}

fn acknowledged(pushed: &mut PushedStates, ack: &v1::Ack) -> Acknowledgement {
    pushed.acknowledge(ack, NOW).expect("it fits").expect("it is recent")
}

fn record(capabilities: &[&str], sent: &[(&str, u64)], acknowledged: &[(&str, u64)]) -> Arc<StreamRecord> {
    let capabilities: Vec<_> = capabilities.iter().map(|&name| name.to_owned()).collect();
    let record = StreamRecord::new("uid", "", None, AgentInfo::new("0.1.0", &capabilities));
    record.acks.set_sent(bundles(sent));
    if !acknowledged.is_empty() {
        let in_effect = bundles(acknowledged).to_vec();
        record.acks.set_acknowledged(Acknowledgement { generation: 1, at: NOW, in_effect, ahead: Vec::new() });
    }
    Arc::new(record)
}

/// How many of these streams have acknowledged a sequence of the bundle that they were sent, have not, and cannot.
pub(crate) fn counts(
    records: &[Arc<StreamRecord>],
    trust_domain: &TrustDomain,
    sequence: u64,
) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for acks in records.iter().map(|record| &record.acks) {
        let Some(sent) = acks.sent().into_iter().find(|sent| sent.trust_domain == *trust_domain) else { continue };
        match acks.is_able() {
            false => counts.2 += 1,
            true if sent.in_effect >= Some(sequence) => counts.0 += 1,
            true => counts.1 += 1,
        }
    }
    counts
}

#[test]
fn streams_are_counted_by_how_they_stand_to_a_sequence() {
    let records = [
        record(&[ACK], &[("a", 7), ("b", 3)], &[("a", 7), ("b", 3)]),
        record(&[ACK], &[("a", 7)], &[("a", 6)]),
        record(&[ACK], &[("a", 7)], &[]),
        record(&["move"], &[("a", 7)], &[]),
        record(&[ACK], &[("b", 3)], &[]),
        record(&[ACK], &[], &[]),
    ];
    let counts = |name: &str, sequence| counts(&records, &domain(name), sequence);
    assert_eq!(counts("a", 6), (2, 1, 1));
    assert_eq!(counts("a", 7), (1, 2, 1));
    assert_eq!(counts("a", 8), (0, 3, 1));
    assert_eq!(counts("b", 3), (1, 1, 0));
    assert_eq!(counts("c", 0), (0, 0, 0));
}

#[test]
fn a_sequence_lower_than_sent_counts_as_it_is() {
    let ack = acknowledged(&mut pushed(&[(1, &[("a", 7), ("b", 3)])]), &ack(1, &[("a", 6)]));
    assert_eq!(ack.in_effect, bundles(&[("a", 6)]).to_vec());
    assert_eq!((ack.generation, ack.at, ack.ahead.len()), (1, NOW, 0));
}

// An agent that came from a replica which knew more has a higher one; but it might also lie about what is to come.
#[test]
fn a_sequence_higher_than_sent_counts_as_the_one_sent_and_is_kept_apart() {
    let mut pushed = pushed(&[(1, &[("a", 7)]), (2, &[("a", 8)])]);
    let first = acknowledged(&mut pushed, &ack(1, &[("a", u64::MAX)]));
    assert_eq!(first.in_effect, bundles(&[("a", 7)]).to_vec());
    assert_eq!(first.ahead, bundles(&[("a", u64::MAX)]).to_vec());
    let second = acknowledged(&mut pushed, &ack(2, &[("a", 8)]));
    assert_eq!((second.in_effect, second.ahead), (bundles(&[("a", 8)]).to_vec(), Vec::new()));
}

#[test]
fn what_does_not_fit_what_was_sent_is_refused() {
    let many: Vec<_> = (0..=MAX_ACK_SEQUENCES).map(|n| format!("d{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
    for (ack, says) in [
        (ack(0, &[]), "not sent on this stream"),
        (ack(4, &[]), "not sent on this stream"),
        (ack(6, &[("a", 1)]), "not sent on this stream"),
        (ack(3, &[("c", 1)]), "not in its State"),
        (ack(3, &[("", 1)]), "not in its State"),
        (ack(3, &[("a", 1), ("a", 1)]), "twice"),
        (ack(3, &many), "at most 200"),
    ] {
        let mut pushed = pushed(&[(3, &[("a", 1), ("b", 1)]), (5, &[("a", 1), ("c", 1)])]);
        let refused = pushed.acknowledge(&ack, NOW).expect_err(says);
        assert!(refused.contains(says), "{refused}");
        assert_eq!(pushed.states.len(), 2, "nothing of it counts");
    }
}

#[test]
fn the_last_acknowledged_state_may_be_acknowledged_again_and_earlier_ones_are_ignored() {
    let mut pushed = pushed(&[(1, &[("a", 1)]), (2, &[("a", 2)]), (3, &[("a", 3)])]);
    assert_eq!(acknowledged(&mut pushed, &ack(2, &[("a", 1)])).in_effect, bundles(&[("a", 1)]).to_vec());
    assert_eq!(acknowledged(&mut pushed, &ack(2, &[("a", 2)])).in_effect, bundles(&[("a", 2)]).to_vec());
    assert_eq!(pushed.acknowledge(&ack(1, &[("a", 1)]), NOW), Ok(None));
    assert_eq!(acknowledged(&mut pushed, &ack(3, &[])).generation, 3);
}

// A stopped agent that continues acknowledges the first of many States; that is late, but no breach of the protocol.
#[test]
fn an_agent_that_lags_far_behind_is_remembered_in_bounds_and_not_refused() {
    let mut pushed = PushedStates::default();
    for generation in 1..=1000 {
        pushed.push(generation, bundles(&[("a", generation)]));
    }
    assert_eq!(pushed.states.len(), MAX_PUSHED);
    assert_eq!(pushed.acknowledge(&ack(1, &[("a", 1)]), NOW), Ok(None));
    assert_eq!(acknowledged(&mut pushed, &ack(1000, &[("a", 1000)])).generation, 1000);
}

#[test]
fn a_bundle_that_was_withdrawn_and_sent_again_is_pending() {
    let acks = AckRecord::new(true);
    let a = |in_effect, claimed| SentBundle { trust_domain: domain("a"), in_effect, claimed };
    let acknowledgement = |generation, sequences: &[(&str, u64)]| Acknowledgement {
        generation,
        at: NOW,
        in_effect: bundles(sequences).to_vec(),
        ahead: vec![BundleSequence { trust_domain: domain("a"), sequence: 9 }],
    };
    acks.set_sent(bundles(&[("a", 7)]));
    acks.set_acknowledged(acknowledgement(1, &[("a", 7)]));
    assert_eq!(acks.sent(), [a(Some(7), Some(9))]);
    acks.set_sent(bundles(&[]));
    assert_eq!(acks.sent(), []);
    acks.set_sent(bundles(&[("a", 7)]));
    assert_eq!(acks.sent(), [a(None, None)]);

    // The acknowledgement crosses the State that withdraws the bundle.
    acks.set_sent(bundles(&[]));
    acks.set_acknowledged(acknowledgement(1, &[("a", 7)]));
    acks.set_sent(bundles(&[("a", 7)]));
    assert_eq!(acks.sent(), [a(None, None)]);
    assert_eq!(acks.acknowledgement().map(|ack| (ack.in_effect.len(), ack.ahead.len())), Some((0, 0)));
}
