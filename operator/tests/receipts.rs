//! What is recorded of receipts, and which are refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use countersign_core::{
    csr::Csr,
    key::{KeyType, PrivateKey},
    x509::fingerprint,
};
use countersign_issuer::receipts::Delivery;
use countersign_proto::issuer::v1::{self, HeldSvid, Receipt, session_request::Kind};
use support::{Stream, World, epoch};
use tonic::Code;

/// A stream of pod `orders-0` whose agent has these capabilities.
async fn opened(world: &World, capabilities: &[&str]) -> Stream {
    let capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
    let hello = v1::Hello { token: world.token(), capabilities, ..v1::Hello::default() };
    let mut stream = world.client().await.hello(hello).await.unwrap();
    stream.state().await;
    stream
}

fn receipt(socket: &[u8], files: &[u8]) -> Kind {
    let svids = vec![HeldSvid { socket_sha256: socket.to_vec(), files_sha256: files.to_vec() }];
    Kind::Receipt(Receipt { svids, clock_ms: epoch().as_millisecond() })
}

/// A response comes after all that was sent before has been handled.
async fn settle(world: &World, stream: &mut Stream) {
    assert_eq!(stream.jwt(&["payments"], world.token()).await.refusal, None);
}

fn deliveries(world: &World) -> Vec<Delivery> {
    let records = world.context.registry.snapshot();
    let of = |record: &countersign_issuer::record::StreamRecord| {
        let served = record.served().pop().unwrap();
        // Long after it was issued.
        let later = epoch() + jiff::SignedDuration::from_hours(1);
        record.receipts.delivery(1, served.since, served.issued.as_ref(), later)
    };
    records.iter().map(|record| of(record)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_holds_is_compared_with_what_was_issued_on_its_stream() {
    let world = World::new().await;
    let mut stream = opened(&world, &["receipt"]).await;
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let issued = stream.x509(Csr::create(&key).unwrap(), world.token()).await;
    let digest = fingerprint(&issued.certificates[0]);
    for (socket, files, delivery) in [
        (&digest, &digest[..], Delivery::Held),
        (&digest, &[][..], Delivery::NotInFiles),
        (&[7; 32], &digest, Delivery::NotOnSocket),
    ] {
        stream.send(receipt(socket, files)).await;
        settle(&world, &mut stream).await;
        assert_eq!(deliveries(&world), [delivery]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_is_malformed_or_unannounced_ends_the_stream() {
    let world = World::new().await;
    for (capability, message, says) in [
        ("receipt", receipt(&[7; 31], &[]), "32 bytes"),
        ("receipt", receipt(&[7; 32], &[7; 33]), "32 bytes"),
        ("receipt", Kind::Receipt(Receipt { svids: vec![HeldSvid::default(); 33], clock_ms: 0 }), "at most 32"),
        ("receipt", Kind::Receipt(Receipt { svids: Vec::new(), clock_ms: i64::MAX }), "no time"),
        ("ack", receipt(&[7; 32], &[]), "capability"),
    ] {
        let stream = opened(&world, &[capability]).await;
        stream.send(message).await;
        let status = stream.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
}

// It would accuse every agent.
#[tokio::test(start_paused = true)]
async fn a_replica_whose_own_clock_is_wrong_says_nothing_of_those_of_agents() {
    for (off, ahead) in [(0, 60), (3600, 0)] {
        let world = World::new().await;
        let stream = opened(&world, &["receipt"]).await;
        let record = world.context.registry.snapshot().pop().unwrap();
        let now = world.clock.now();
        world.clock_skew.observe(now, now, now - jiff::SignedDuration::from_secs(off));
        let clock_ms = (now + jiff::SignedDuration::from_secs(60)).as_millisecond();
        stream.send(Kind::Receipt(Receipt { svids: Vec::new(), clock_ms })).await;
        // What was sent before has been handled when the stream ends.
        stream.send(receipt(&[7], &[])).await;
        stream.end().await;
        assert_eq!(record.receipts.clock_ahead(), ahead);
    }
}
