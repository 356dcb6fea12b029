//! What an agent acknowledges, and when: a State that is in effect, with the bundles that are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_core::bundle::Bundle;
use countersign_proto::issuer::MAX_ACK_SEQUENCES;
use countersign_proto::issuer::v1;
use futures::StreamExt as _;
use support::agent::{TestAgent, comes_true};
use support::issuer::{Fault, identity};
use support::{DEFAULT_ID, FakeIssuer};

/// An acknowledgement of `generation` with these sequences.
fn ack(generation: u64, sequences: &[(&str, u64)]) -> (u64, Vec<(String, u64)>) {
    (generation, sequences.iter().map(|&(name, sequence)| (name.to_owned(), sequence)).collect())
}

impl TestAgent {
    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        assert!(comes_true(condition).await, "{what}: {:?}", self.issuer.acknowledgements());
    }

    async fn until_acknowledged(&self, last: (u64, Vec<(String, u64)>)) {
        self.until(&format!("{last:?}"), || self.issuer.acknowledgements().last() == Some(&last)).await;
    }

    fn files_have(&self, bundle: &Bundle) -> bool {
        std::fs::read_to_string(self.home.credentials().join("ca.crt")).is_ok_and(|file| file == bundle.x509_pem())
    }
}

#[tokio::test]
async fn each_state_is_acknowledged_once_its_bundles_are_in_effect() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |_| {}).await;
    agent.until_acknowledged(ack(1, &[("example.org", 1)])).await;
    assert!(agent.files_have(&agent.issuer.state.bundle()));
    assert_eq!(agent.client().await.fetch_x509_bundles().await.unwrap().len(), 1);
    agent.issuer.publish_sequence(5);
    agent.until_acknowledged(ack(2, &[("example.org", 5)])).await;
    // What was sent before this request has arrived when it is answered.
    agent.client().await.fetch_jwt_token(["payments"], None).await.unwrap();
    assert_eq!(agent.issuer.acknowledgements().len(), 2, "each once");
}

#[tokio::test]
async fn a_state_whose_credentials_are_not_issued_yet_is_not_acknowledged() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |issuer| issuer.set_fault(Fault::Silent)).await;
    agent.until("a request", || agent.issuer.state.requests.load(Ordering::Relaxed) >= 1).await;
    agent.issuer.publish_sequence(2);
    agent.issuer.publish_sequence(3);
    // The default identity was requested with Hello, and the second only after the first State.
    agent.issuer.grant(vec![identity(DEFAULT_ID), identity("spiffe://example.org/second")]);
    agent.until("another request", || agent.issuer.state.requests.load(Ordering::Relaxed) >= 2).await;
    assert_eq!(agent.issuer.acknowledgements(), []);
    agent.issuer.set_fault(Fault::None);
    agent.issuer.close_streams();
    // Of the States, only the one in effect is acknowledged: that of the new stream.
    agent.until("an acknowledgement", || !agent.issuer.acknowledgements().is_empty()).await;
    let acknowledgements = agent.issuer.acknowledgements();
    assert_eq!(acknowledgements.len(), 1);
    assert!(acknowledgements.iter().all(|(generation, _)| *generation > 1), "{acknowledgements:?}");
}

#[tokio::test]
async fn a_state_is_not_acknowledged_while_its_files_cannot_be_written() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |_| {}).await;
    agent.until_acknowledged(ack(1, &[("example.org", 1)])).await;
    // Files stand where the next directories would be made.
    let blocked = |n: usize| agent.home.path("identity").join(format!(".credentials-{n}"));
    let blocked: Vec<_> = (0..100).map(blocked).filter(|path| std::fs::write(path, "").is_ok()).collect();
    let client = agent.client().await;
    let mut bundles = Box::pin(client.stream_x509_bundles().await.unwrap());
    bundles.next().await.unwrap().unwrap();
    for sequence in [5, 6] {
        agent.issuer.publish_sequence(sequence);
        bundles.next().await.expect("it is published").unwrap();
    }
    // What was sent before this request has arrived when it is answered.
    client.fetch_jwt_token(["payments"], None).await.unwrap();
    assert_eq!(agent.issuer.acknowledgements().len(), 1);

    blocked.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    client.fetch_jwt_token(["billing"], None).await.unwrap();
    agent.until_acknowledged(ack(3, &[("example.org", 6)])).await;
    assert_eq!(agent.issuer.acknowledgements().len(), 2, "of both States, only the last");
    assert!(agent.files_have(&agent.issuer.state.bundle()));
}

#[tokio::test]
async fn the_state_of_a_new_stream_is_acknowledged_again() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |_| {}).await;
    agent.until_acknowledged(ack(1, &[("example.org", 1)])).await;
    agent.issuer.move_streams(Duration::from_millis(20));
    agent.until_acknowledged(ack(2, &[("example.org", 1)])).await;
}

#[tokio::test]
async fn a_state_without_identity_is_acknowledged_without_bundles() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |_| {}).await;
    agent.until_acknowledged(ack(1, &[("example.org", 1)])).await;
    agent.issuer.withdraw("it was deleted");
    agent.until_acknowledged(ack(2, &[])).await;
    assert!(!agent.home.credentials().exists());
}

#[tokio::test]
async fn an_older_bundle_is_not_used_and_the_newer_one_is_acknowledged() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |issuer| issuer.publish_sequence(5)).await;
    agent.until_acknowledged(ack(1, &[("example.org", 5)])).await;
    agent.issuer.publish_sequence(4);
    agent.until_acknowledged(ack(2, &[("example.org", 5)])).await;
    // As from another replica.
    agent.issuer.move_streams(Duration::from_millis(20));
    agent.until_acknowledged(ack(3, &[("example.org", 5)])).await;
    agent.issuer.publish_sequence(6);
    agent.until_acknowledged(ack(4, &[("example.org", 6)])).await;
}

#[tokio::test]
async fn of_a_bundle_that_cannot_be_read_the_sequence_in_use_is_acknowledged() {
    let foreign = |sequence, document: Vec<u8>| v1::Bundle {
        trust_domain: "example.com".into(),
        document: document.into(),
        sequence,
        ..v1::Bundle::default()
    };
    let readable = |issuer: &FakeIssuer| {
        let bundle = issuer.state.bundle();
        Bundle { trust_domain: "example.com".parse().unwrap(), ..bundle }.to_json()
    };
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |issuer| {
        *issuer.state.foreign_bundles.lock().unwrap() = vec![foreign(7, b"damaged".to_vec())];
    })
    .await;
    agent.until_acknowledged(ack(1, &[("example.org", 1)])).await;
    let state = Arc::clone(&agent.issuer.state);
    *state.foreign_bundles.lock().unwrap() = vec![foreign(8, readable(&agent.issuer))];
    agent.issuer.publish_sequence(1);
    agent.until_acknowledged(ack(2, &[("example.org", 1), ("example.com", 8)])).await;
    *state.foreign_bundles.lock().unwrap() = vec![foreign(9, b"damaged".to_vec())];
    agent.issuer.publish_sequence(2);
    agent.until_acknowledged(ack(3, &[("example.org", 2), ("example.com", 8)])).await;
}

// More would be over the operator's size limit of messages, and end every stream.
#[tokio::test]
async fn of_very_many_bundles_as_many_are_acknowledged_as_fit_and_the_own_one_first() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |issuer| {
        let document = issuer.state.bundle().to_json();
        let foreign = |n| v1::Bundle {
            trust_domain: format!("a{n}"),
            document: document.clone().into(),
            sequence: 1,
            ..v1::Bundle::default()
        };
        *issuer.state.foreign_bundles.lock().unwrap() = (0..MAX_ACK_SEQUENCES + 50).map(foreign).collect();
    })
    .await;
    agent.until("an acknowledgement", || !agent.issuer.acknowledgements().is_empty()).await;
    let (_, sequences) = agent.issuer.acknowledgements().pop().unwrap();
    assert_eq!(sequences.len(), MAX_ACK_SEQUENCES);
    assert_eq!(sequences.first(), Some(&("example.org".to_owned(), 1)));
}

#[tokio::test]
async fn an_operator_of_an_earlier_version_is_served_by_and_not_taken_back_to_an_older_bundle() {
    let agent = TestAgent::start(vec![identity(DEFAULT_ID)], |issuer| issuer.publish_sequence(5)).await;
    agent.until_acknowledged(ack(1, &[("example.org", 5)])).await;
    // During an update of the operator the stream moves to a replica of the earlier version, and back.
    agent.issuer.state.speaks_earlier_version.store(true, Ordering::Relaxed);
    agent.issuer.publish_sequence(4);
    agent.issuer.move_streams(Duration::from_millis(20));
    agent.until("the next stream", || agent.issuer.state.hellos.load(Ordering::Relaxed) == 2).await;
    agent.client().await.fetch_jwt_token(["payments"], None).await.unwrap();
    assert_eq!(agent.issuer.acknowledgements().len(), 1, "it ignores them");
    agent.issuer.state.speaks_earlier_version.store(false, Ordering::Relaxed);
    agent.issuer.move_streams(Duration::from_millis(20));
    agent.until("an acknowledgement", || agent.issuer.acknowledgements().len() == 2).await;
    let sequences = agent.issuer.acknowledgements().pop().map(|(_, sequences)| sequences);
    assert_eq!(sequences, Some(vec![("example.org".to_owned(), 5)]));
}
