//! Agents of other builds: whatever a later one says beyond what is known here is ignored, and what an earlier one does not
//! say is not missed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use countersign_core::{
    csr::Csr,
    key::{KeyType, PrivateKey},
};
use countersign_issuer::agent_versions::{SupportPolicy, Version};
use countersign_issuer::events::PodEvent;
use countersign_operator::inspect::report::Source;
use countersign_proto::issuer::v1::{self, SessionResponse, session_response};
use futures::FutureExt as _;
use support::World;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

/// `SessionRequest` as of a later version: with a kind of its own, and fields beside those we know.
#[derive(Clone, PartialEq, prost::Message)]
struct FutureRequest {
    #[prost(oneof = "FutureKind", tags = "1, 3, 100")]
    kind: Option<FutureKind>,
    #[prost(string, tag = "101")]
    beside: String,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum FutureKind {
    #[prost(message, tag = "1")]
    Hello(FutureHello),
    #[prost(message, tag = "3")]
    X509(v1::X509Request),
    #[prost(message, tag = "100")]
    Wit(FutureHello),
}

#[derive(Clone, PartialEq, prost::Message)]
struct FutureHello {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, repeated, tag = "2")]
    capabilities: Vec<String>,
    #[prost(string, tag = "3")]
    token: String,
    #[prost(string, tag = "4")]
    session: String,
    #[prost(bytes, tag = "50")]
    attestation: Vec<u8>,
}

fn csr() -> Vec<u8> {
    Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_a_later_version_is_served_and_what_only_it_knows_is_ignored() {
    let world = World::new().await;
    let mut client = tonic::client::Grpc::new(world.client().await.0);
    client.ready().await.unwrap();
    let (requests, outbound) = mpsc::channel(8);
    let path = PathAndQuery::from_static("/countersign.issuer.v1.Issuer/Session");
    let hello = FutureHello {
        version: "3.7.0-beta".to_owned(),
        capabilities: vec!["move".to_owned(), "wit".to_owned(), "x".repeat(500)],
        token: world.token(),
        session: String::new(),
        attestation: vec![7; 1000],
    };
    let send = async |kind| {
        requests.send(FutureRequest { kind: Some(kind), beside: "unknown".to_owned() }).await.unwrap();
    };
    send(FutureKind::Hello(hello.clone())).await;
    let codec = ProstCodec::<FutureRequest, SessionResponse>::default();
    let request = tonic::Request::new(ReceiverStream::new(outbound));
    let mut responses = client.streaming(request, path, codec).await.unwrap().into_inner();
    let Some(session_response::Kind::State(state)) = responses.message().await.unwrap().unwrap().kind else {
        panic!("not a state")
    };
    assert_eq!(state.identities.len(), 1);
    send(FutureKind::Wit(hello)).await;
    send(FutureKind::X509(v1::X509Request { id: 4, csr: csr(), token: world.token(), ..Default::default() })).await;
    let Some(session_response::Kind::X509(answer)) = responses.message().await.unwrap().unwrap().kind else {
        panic!("not a certificate")
    };
    assert_eq!((answer.id, answer.refusal), (4, None));
    let text = world.metrics.encode().unwrap();
    assert!(text.contains("countersign_agents{version=\"3.7\"} 1"), "{text}");
    assert!(text.contains("countersign_agents_outdated 0"), "{text}");
}

// An operator serves every agent of the last twelve months, and those before as far as it can.
#[tokio::test(start_paused = true)]
async fn an_agent_of_another_version_or_none_is_served_and_counted_as_what_it_is() {
    let world = World::new().await;
    let client = world.client().await;
    for (version, counted) in [("", "other"), ("0.1.0", "0.1"), ("0.0.9", "0.0"), ("no version \n\"{", "other")] {
        let hello = v1::Hello { version: version.to_owned(), token: world.token(), ..v1::Hello::default() };
        let mut stream = client.hello(hello).await.unwrap();
        assert_eq!(stream.state().await.identities.len(), 1);
        assert_eq!(stream.x509(csr(), world.token()).await.refusal, None);
        let text = world.metrics.encode().unwrap();
        assert!(text.contains(&format!("countersign_agents{{version=\"{counted}\"}} 1")), "{version:?}: {text}");
        // Superseded, and waited for: the count is exact.
        let (newer, _) = world.opened().await;
        assert_eq!(stream.end().await.code(), Code::Aborted);
        drop(newer);
    }
}

// Which versions are outdated is for `issuer::skew` to say, and its tests; here: it is said, and the agent is served.
#[tokio::test(start_paused = true)]
async fn an_agent_within_the_window_makes_no_event() {
    let mut world = World::new().await;
    let client = world.client().await;
    let hello = v1::Hello { version: "0.1.0".to_owned(), token: world.token(), ..v1::Hello::default() };
    let mut stream = client.hello(hello).await.unwrap();
    stream.state().await;
    assert!(world.notices.next().now_or_never().is_none(), "not Outdated");
}

// Served as far as it understands, counted, told of once, and in what the status is made of.
#[tokio::test(start_paused = true)]
async fn an_outdated_agent_is_served_counted_and_told_of() {
    const OWN: Version = Version { major: 1, minor: 10 };
    let by_version = (SupportPolicy { own: OWN, required: &[] }, "1.5.0", "1.6 is the oldest");
    let by_capability = (SupportPolicy { own: OWN, required: &["fly"] }, "1.10.0", "cannot \"fly\"");
    for (support, version, says) in [by_version, by_capability] {
        let mut world = World::with_support(support).await;
        let (context, client) = (world.context.clone(), world.client().await);
        let source = Source {
            replica: "a".to_owned(),
            registry: context.registry.clone(),
            readiness: world.readiness.clone(),
            support: context.support,
            index: context.index.clone(),
            published: context.published.clone(),
            clock: context.clock.clone(),
        };
        let outdated = || {
            let identities = source.report().identities;
            let reported: Vec<_> = identities.iter().map(|one| (one.pods, one.outdated)).collect();
            (world.metrics.issuer.agents_outdated.get(), reported)
        };
        let hello = v1::Hello { version: version.to_owned(), token: world.token(), ..v1::Hello::default() };
        let mut stream = client.hello(hello.clone()).await.unwrap();
        assert_eq!(stream.state().await.identities.len(), 1);
        assert_eq!(stream.x509(csr(), world.token()).await.refusal, None);
        assert_eq!(outdated(), (1, vec![(1, 1)]), "{version}");

        // Superseded by one that is as it should be, and waited for: the counts are exact.
        let hello = v1::Hello { version: "1.6.0".to_owned(), capabilities: vec!["fly".to_owned()], ..hello };
        let mut newer = client.hello(hello).await.unwrap();
        newer.state().await;
        assert_eq!(stream.end().await.code(), Code::Aborted);
        assert_eq!(outdated(), (0, vec![(1, 0)]));

        let mut outdated = Vec::new();
        while let Some(Some((pod, _, notice))) = world.notices.next().now_or_never() {
            if let PodEvent::Outdated(why) = notice {
                outdated.push((pod.name, why));
            }
        }
        assert!(matches!(outdated.as_slice(), [(pod, why)] if pod == "orders-0" && why.contains(says)), "{outdated:?}");
    }
}
