//! What a stream may not be: beside its pod's agent unseen, of a token or a pod whose time is over, more than its share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use countersign_policy as policy;
use std::time::Duration;

use countersign_core::{
    csr::Csr,
    entitlement::MAX_IDENTITIES,
    key::{KeyType, PrivateKey},
};
use countersign_index::PodRecord;
use countersign_issuer::events::PodEvent;
use countersign_issuer::registry::StreamLimits;
use countersign_operator::watch::deletions;
use countersign_runtime::rate::Rate;
use serde_json::json;
use support::{EPOCH, World, claims, epoch, identity, pod};
use tonic::Code;

fn csr() -> Vec<u8> {
    Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap()
}

// A thief that names a container's session is not beside the agent's session of the whole pod, nor unseen.
#[tokio::test(start_paused = true)]
async fn a_stream_of_another_kind_of_session_displaces_the_pods_with_an_event_and_is_displaced_by_it() {
    let mut world = World::new().await;
    let (agent, _) = world.opened().await;
    let mut thief = world.hello(world.token(), "app").await;
    thief.state().await;
    assert_eq!(agent.end().await.code(), Code::Aborted);
    let (pod, notice) = world.notice().await;
    assert_eq!(pod.name, "orders-0");
    assert!(matches!(&notice, PodEvent::Superseded(why) if why.contains("container app")), "{notice:?}");
    let (mut agent, _) = world.opened().await;
    assert_eq!(thief.end().await.code(), Code::Aborted, "the agent is not kept out");
    assert_eq!(agent.x509(csr(), world.token()).await.refusal, None);
    assert!(matches!(world.notice().await.1, PodEvent::Superseded(_)));
}

#[tokio::test(start_paused = true)]
async fn there_is_no_session_for_the_agents_own_container() {
    let world = World::new().await;
    let mut with_agent = pod("orders-0", "p0");
    with_agent.facts.containers.push("countersign-agent".to_owned());
    world.index.update(|index| index.apply_pod(with_agent));
    let (mut agent, _) = world.opened().await;
    let status = world.hello(world.token(), "countersign-agent").await.end().await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("\"countersign-agent\""), "{status}");
    assert_eq!(agent.x509(csr(), world.token()).await.refusal, None, "it displaces nobody");
}

// As for Kubernetes' own authenticator, and by the time alone: a finalizer keeps such a pod without another event.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_being_deleted_ends_a_minute_after_its_grace_period() {
    let world = World::new().await;
    let following = deletions::follow(world.index.clone(), world.clock.clone(), world.clock_skew.clone());
    let following = tokio::spawn(following);
    let (mut stream, _) = world.opened().await;
    let deleted_at = epoch() + Duration::from_secs(30);
    let deleted = || PodRecord { deleted_at: Some(deleted_at), ..pod("orders-0", "p0") };
    world.index.update(|index| index.apply_pod(deleted()));
    tokio::time::sleep(Duration::from_secs(89)).await;
    assert_eq!(stream.x509(csr(), world.token()).await.refusal, None, "within the minute it may still renew");
    let status = stream.end().await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let ended = world.clock.now().duration_since(deleted_at).as_secs();
    assert!((60..=61).contains(&ended), "{ended} s");
    assert_eq!(world.refusal(world.token()).await.code(), Code::Unauthenticated);
    // What the watch tells of it later does not bring it back.
    let mut relabelled = deleted();
    relabelled.facts.labels.insert("seen".to_owned(), "again".to_owned());
    world.index.update(|index| index.apply_pod(relabelled.clone()));
    assert_eq!(world.refusal(world.token()).await.code(), Code::Unauthenticated);
    following.abort();
    // Nor does a live read.
    world.index.update(|index| index.remove_pod("p0"));
    world.live.pods.lock().unwrap().insert("orders-0".to_owned(), relabelled);
    assert_eq!(world.refusal(world.token()).await.code(), Code::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_lives_too_long_or_names_no_node_opens_no_stream() {
    let world = World::new().await;
    let mut long = claims("orders-0", "p0");
    long["exp"] = json!(EPOCH + 10 * 365 * 86_400);
    let mut timeless = claims("orders-0", "p0");
    timeless.as_object_mut().unwrap().remove("iat");
    let mut early = claims("orders-0", "p0");
    early["kubernetes.io"].as_object_mut().unwrap().remove("node");
    for (claims, says) in [(long, "--max-token-life"), (timeless, "iat"), (early, "names no node")] {
        let status = world.refusal(world.signer.sign(&claims)).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_selected_too_often_gets_the_oldest_identities_and_an_event_names_the_others() {
    let mut world = World::new().await;
    let begun = world.metrics.issuer.states_pushed.get();
    world.index.update(|index| {
        for number in 0..MAX_IDENTITIES + 1 {
            index.apply_identity(policy::workload_identity(&identity(
                &format!("z{number:02}"),
                json!({"path": format!("/ns/shop/{number}")}),
            )));
        }
    });
    let (_stream, state) = world.opened().await;
    assert_eq!(state.identities.len(), MAX_IDENTITIES);
    assert_eq!(world.metrics.issuer.states_pushed.get() - begun, 1);
    let (pod, notice) = world.notice().await;
    assert_eq!(pod.name, "orders-0");
    let PodEvent::TooManyIdentities(why) = notice else { panic!("{notice:?}") };
    assert!(why.contains("shop/z31, shop/z32:"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn who_has_used_up_its_namespaces_share_of_signatures_is_told_when_to_come_back() {
    let rate = Rate { each: Duration::from_secs(1), burst: 16 };
    let world = World::with_limits(StreamLimits { signatures: rate, ..StreamLimits::default() }).await;
    let (mut stream, _) = world.opened().await;
    let mut signed = 0;
    let refusal = loop {
        match stream.x509(csr(), world.token()).await.refusal {
            None => signed += 1,
            Some(refusal) => break refusal,
        }
    };
    assert_eq!(signed, 2 + 16);
    assert_eq!(Code::from(refusal.code), Code::Unavailable, "{}", refusal.message);
    assert!(refusal.retry_after_ms >= 8000 && refusal.message.contains("share"), "{refusal:?}");
    tokio::time::sleep(Duration::from_millis(refusal.retry_after_ms.into())).await;
    assert_eq!(stream.x509(csr(), world.token()).await.refusal, None, "it comes back as told");
}
