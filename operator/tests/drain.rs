//! How a replica goes: its streams move, spread over a time, and nothing that was asked is left unanswered.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{net::Ipv4Addr, time::Duration};

use countersign_core::{
    csr::Csr,
    key::{KeyType, PrivateKey},
};
use countersign_issuer::{connection::ConnectionHandle, session};
use countersign_proto::issuer::v1::{self, session_request, session_response};
use futures::{StreamExt, stream};
use support::{World, claims, pod};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Code, Status};

fn csr() -> Vec<u8> {
    Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap()
}

// All agents of a replica that goes come to the others: not at once, not late.
#[tokio::test(start_paused = true)]
async fn the_streams_of_a_replica_that_goes_move_spread_over_less_than_fifteen_seconds() {
    const STREAMS: usize = 100;
    let world = World::new().await;
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let (name, uid) = (format!("orders-{number}"), format!("d{number}"));
        world.index.update(|index| index.apply_pod(pod(&name, &uid)));
        let token = world.signer.sign(&claims(&name, &uid));
        let client = world.client().await;
        let mut stream = client.hello(v1::Hello { token, ..v1::Hello::default() }).await.unwrap();
        stream.state().await;
        streams.push((client, stream));
    }
    let begin = Instant::now();
    world.shutdown.cancel();
    let ends = streams.into_iter().map(|(client, stream)| async move {
        let status = stream.end().await;
        assert_eq!(status.code(), Code::Unavailable);
        let wait: u64 = status.metadata().get("retry-after-ms").unwrap().to_str().unwrap().parse().unwrap();
        assert!(wait <= 1000, "another replica is there: {wait} ms");
        let at = begin.elapsed();
        // GOAWAY: nothing new begins on the connection.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(client.stream().await.is_err());
        (at, wait)
    });
    let ends = futures::future::join_all(ends).await;
    let (first, last) = (ends.iter().min().unwrap().0, ends.iter().max().unwrap().0);
    assert!(first >= Duration::from_secs(2) && last <= Duration::from_secs(12), "{first:?} to {last:?}");
    let early = ends.iter().filter(|(at, _)| *at < Duration::from_secs(6)).count();
    assert!((20..80).contains(&early), "{early} of {STREAMS} in the first half");
    world.closed().await;
    assert!(begin.elapsed() <= Duration::from_secs(15));
}

// Until Services know that it goes, a replica serves as ever.
#[tokio::test(start_paused = true)]
async fn for_a_moment_a_replica_that_goes_still_takes_connections_and_then_no_more() {
    let world = World::new().await;
    world.shutdown.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let client = world.client().await;
    let mut stream = client.hello(v1::Hello { token: world.token(), ..v1::Hello::default() }).await.unwrap();
    assert_eq!(stream.state().await.identities.len(), 1);
    assert_eq!(stream.x509(csr(), world.token()).await.refusal, None);
    let begin = Instant::now();
    world.closed().await;
    assert!(begin.elapsed() <= Duration::from_millis(1100), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_a_stream_moves_is_answered_on_it() {
    let world = World::new().await;
    let token = world.token();
    let message = |kind| Ok::<_, Status>(v1::SessionRequest { kind: Some(kind) });
    let hello = session_request::Kind::Hello(v1::Hello { token: token.clone(), ..v1::Hello::default() });
    let asked = (1..=5).map(move |id| {
        session_request::Kind::X509(v1::X509Request { id, csr: csr(), token: token.clone(), ..Default::default() })
    });
    let requests = stream::iter(std::iter::once(hello).chain(asked).map(message)).chain(stream::pending());
    let (link, (outbound, mut responses)) = (ConnectionHandle::new(None), mpsc::channel(1));
    let admission = world.context.registry.admit(Ipv4Addr::LOCALHOST.into(), Instant::now()).unwrap();
    tokio::spawn(session::serve(world.context.clone(), link.clone(), admission, Box::pin(requests), outbound));
    let state = responses.recv().await.unwrap().unwrap();
    assert!(matches!(state.kind, Some(session_response::Kind::State(_))));
    link.leave();
    for expected in 1..=5 {
        let Some(session_response::Kind::X509(answer)) = responses.recv().await.unwrap().unwrap().kind else {
            panic!("not a certificate")
        };
        assert_eq!((answer.id, answer.refusal), (expected, None));
    }
    assert_eq!(responses.recv().await.unwrap().unwrap_err().code(), Code::Unavailable);
}
