//! What is recorded of acknowledgements, and which are refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{sync::Arc, time::Duration};

use countersign_core::id::TrustDomain;
use countersign_issuer::{acknowledgements::BundleSequence, published::Published};
use countersign_proto::issuer::{
    MAX_ACK_SEQUENCES,
    v1::{self, session_request::Kind},
};
use support::{Stream, World, epoch, pod};
use tokio::sync::watch;
use tonic::Code;

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn ack(generation: u64, sequences: &[(&str, u64)]) -> Kind {
    let sequence = |&(name, sequence): &(&str, u64)| v1::BundleSequence { trust_domain: name.to_owned(), sequence };
    Kind::Ack(v1::Ack { generation, sequences: sequences.iter().map(sequence).collect() })
}

/// A stream of pod `orders-0` whose agent has these capabilities, and its State.
async fn opened(world: &World, capabilities: &[&str]) -> (Stream, v1::State) {
    let capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
    let hello = v1::Hello { token: world.token(), capabilities, ..v1::Hello::default() };
    let mut stream = world.client().await.hello(hello).await.unwrap();
    let state = stream.state().await;
    (stream, state)
}

/// A response comes after all that was sent before has been handled.
async fn settle(world: &World, stream: &mut Stream) {
    assert_eq!(stream.jwt(&["payments"], world.token()).await.refusal, None);
}

/// Acknowledged, pending and unable.
fn counts(world: &World, sequence: u64) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for record in world.context.registry.snapshot() {
        let acks = &record.acks;
        let Some(sent) = acks.sent().into_iter().find(|sent| sent.trust_domain == domain()) else { continue };
        match acks.is_able() {
            false => counts.2 += 1,
            true if sent.in_effect >= Some(sequence) => counts.0 += 1,
            true => counts.1 += 1,
        }
    }
    counts
}

/// Publishes the bundle under this sequence.
fn publish(world: &World, publisher: &watch::Sender<Arc<Published>>, sequence: u64) {
    publisher.send_modify(|published| {
        let bundle = Arc::make_mut(published).bundles.get_mut(&domain()).unwrap();
        Arc::make_mut(bundle).sequence = sequence;
    });
    world.index.notify_sessions();
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_bundle_is_in_effect_until_a_later_one_is_pushed() {
    let (world, publisher) = World::with_publisher().await;
    let (mut stream, first) = opened(&world, &["ack"]).await;
    let sequence = first.bundles[0].sequence;
    assert_eq!(sequence, world.authorities.subscribe().borrow().bundles[&domain()].sequence);
    assert_eq!(counts(&world, sequence), (0, 1, 0));
    stream.send(ack(first.generation, &[("example.org", sequence)])).await;
    settle(&world, &mut stream).await;
    assert_eq!((counts(&world, sequence), counts(&world, sequence + 1)), ((1, 0, 0), (0, 1, 0)));

    publish(&world, &publisher, sequence + 1);
    let second = stream.state().await;
    assert_eq!(second.bundles[0].sequence, sequence + 1);
    assert_eq!((counts(&world, sequence), counts(&world, sequence + 1)), ((1, 0, 0), (0, 1, 0)));
    stream.send(ack(second.generation, &[("example.org", sequence + 1)])).await;
    settle(&world, &mut stream).await;
    assert_eq!(counts(&world, sequence + 1), (1, 0, 0));

    let record = world.context.registry.snapshot().pop().unwrap();
    let acknowledgement = record.acks.acknowledgement().unwrap();
    assert_eq!(acknowledgement.generation, second.generation);
    assert_eq!(acknowledgement.in_effect, [BundleSequence { trust_domain: domain(), sequence: sequence + 1 }]);
    assert!(acknowledgement.at >= epoch());
    let text = world.metrics.encode().unwrap();
    assert!(text.contains("countersign_acknowledgements_total 2"), "{text}");
    drop(stream);
}

// An old agent is served beside, and nobody waits for it.
#[tokio::test(start_paused = true)]
async fn an_agent_that_cannot_acknowledge_is_served_and_counted_apart() {
    let world = World::new().await;
    world.index.update(|index| index.apply_pod(pod("orders-1", "p1")));
    let (mut able, state) = opened(&world, &["move", "ack"]).await;
    let token = world.signer.sign(&support::claims("orders-1", "p1"));
    let mut unable = world.hello(token.clone(), "").await;
    unable.state().await;
    let sequence = state.bundles[0].sequence;
    able.send(ack(state.generation, &[("example.org", sequence)])).await;
    settle(&world, &mut able).await;
    assert_eq!(unable.jwt(&["payments"], token).await.refusal, None);
    assert_eq!(counts(&world, sequence), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_what_was_not_sent_ends_the_stream_and_counts_for_nothing() {
    let world = World::new().await;
    let own: &[(&str, u64)] = &[("example.org", 1)];
    for (capability, later, sequences, says) in [
        ("ack", 1, own, "not sent on this stream"),
        ("ack", 0, &[("example.com", 1)], "not in its State"),
        ("ack", 0, &[own[0], own[0]], "twice"),
        ("move", 0, own, "capability"),
    ] {
        let (stream, state) = opened(&world, &[capability]).await;
        stream.send(ack(state.generation + later, sequences)).await;
        let status = stream.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    assert_eq!(world.metrics.issuer.acknowledgements.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_longest_acknowledgement_is_within_the_size_limit_of_messages() {
    let world = World::new().await;
    let (stream, state) = opened(&world, &["ack"]).await;
    let names: Vec<_> = (0..MAX_ACK_SEQUENCES).map(|n| format!("{n:0>255}")).collect();
    let sequences: Vec<_> = names.iter().map(|name| (name.as_str(), u64::MAX)).collect();
    stream.send(ack(state.generation, &sequences)).await;
    let status = stream.end().await;
    assert!(status.message().contains("not in its State"), "it was read: {status}");
}

// Its agent may come from a replica that knew more, but it might also lie.
#[tokio::test(start_paused = true)]
async fn a_higher_sequence_than_was_sent_counts_as_the_one_that_was_sent() {
    let world = World::new().await;
    let (mut stream, state) = opened(&world, &["ack"]).await;
    let sequence = state.bundles[0].sequence;
    stream.send(ack(state.generation, &[("example.org", u64::MAX)])).await;
    settle(&world, &mut stream).await;
    assert_eq!((counts(&world, sequence), counts(&world, sequence + 1)), ((1, 0, 0), (0, 1, 0)));
    let record = world.context.registry.snapshot().pop().unwrap();
    let ahead = record.acks.acknowledgement().unwrap().ahead;
    assert_eq!(ahead, [BundleSequence { trust_domain: domain(), sequence: u64::MAX }]);
    let claimed = || record.acks.sent()[0].claimed;
    assert_eq!(claimed(), Some(u64::MAX), "and is reported apart");
    stream.send(ack(state.generation, &[("example.org", sequence)])).await;
    settle(&world, &mut stream).await;
    assert_eq!(claimed(), None, "it claims nothing any more");
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_an_earlier_stream_counts_for_nothing() {
    let world = World::new().await;
    let (earlier, state) = opened(&world, &["ack"]).await;
    let (stream, _) = opened(&world, &["ack"]).await;
    assert_eq!(earlier.end().await.code(), Code::Aborted);
    stream.send(ack(state.generation, &[("example.org", state.bundles[0].sequence)])).await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
    assert_eq!(world.metrics.issuer.acknowledgements.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_and_requests_do_not_use_up_each_others_pace() {
    let world = World::new().await;
    let (mut stream, state) = opened(&world, &["ack"]).await;
    let ack = ack(state.generation, &[("example.org", state.bundles[0].sequence)]);
    for _ in 0..100 {
        stream.send(ack.clone()).await;
    }
    for _ in 0..100 {
        settle(&world, &mut stream).await;
    }
    assert_eq!(world.metrics.issuer.acknowledgements.get(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_acknowledgements_ends_the_stream_with_a_time_to_come_back() {
    let world = World::new().await;
    let (mut stream, state) = opened(&world, &["ack"]).await;
    let ack = ack(state.generation, &[("example.org", state.bundles[0].sequence)]);
    for _ in 0..100 {
        stream.send(ack.clone()).await;
    }
    settle(&world, &mut stream).await;
    // What comes at the pace is taken.
    tokio::time::advance(Duration::from_millis(50)).await;
    stream.send(ack.clone()).await;
    settle(&world, &mut stream).await;
    stream.send(ack).await;
    let status = stream.end().await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.metadata().get("retry-after-ms").is_some());
    assert_eq!(world.metrics.issuer.acknowledgements.get(), 101);
}

// The changes that come together are pushed together, also while an agent acknowledges the State before.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_does_not_hasten_a_push() {
    let (world, publisher) = World::with_publisher().await;
    let (mut stream, first) = opened(&world, &["ack"]).await;
    let sequence = first.bundles[0].sequence;
    let begin = tokio::time::Instant::now();
    publish(&world, &publisher, sequence + 1);
    stream.send(ack(first.generation, &[("example.org", sequence)])).await;
    stream.state().await;
    assert!(begin.elapsed() >= Duration::from_millis(50), "{:?}", begin.elapsed());
}
