//! Several sessions of one agent: what happens to one does not affect the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::time::Duration;

use countersign_agent::run::RunError;
use support::issuer::identity;
use support::sessions::TwoSessions;
use support::{DEFAULT_ID, FakeIssuer};
use tonic::Code;

/// Seconds: a certificate of this lifetime is renewed every second.
const SHORT_TTL: u64 = 2;

/// An agent whose certificates are short-lived.
async fn short_lived(directories: &[&str], prepare: impl FnOnce(&FakeIssuer)) -> TwoSessions {
    TwoSessions::start(identity(DEFAULT_ID), directories, |issuer| {
        issuer.x509_ttl(SHORT_TTL);
        prepare(issuer);
    })
    .await
}

#[tokio::test]
async fn a_session_refused_for_good_leaves_the_other_and_their_connection_alone() {
    futures::join!(refused_for_good(Code::InvalidArgument), refused_for_good(Code::Unauthenticated));
}

async fn refused_for_good(code: Code) {
    let agent = short_lived(&["a", "b"], |issuer| issuer.refuse_session("b", code)).await;
    agent.until("session a is ready", || agent.is_ready("a")).await;
    let refusals = agent.issuer.hellos_of("b");
    agent.renews("a", 1).await;
    agent.until("session b tries again", || agent.issuer.hellos_of("b") >= refusals + 2).await;
    agent.renews("a", 1).await;
    assert_eq!(agent.issuer.hellos_of("a"), 1, "on one stream");
    assert_eq!(agent.connections(), 1, "on one connection");
    assert!(!agent.is_ready("b") && agent.marker("status").contains("session b is refused"));
    assert!(!agent.task.is_finished());

    agent.issuer.accept_session("b");
    agent.until("session b is ready", || agent.is_ready("b")).await;
    assert_eq!(agent.connections(), 1, "it joins the connection");
}

#[tokio::test]
async fn a_session_whose_stream_was_served_and_ends_leaves_the_other_alone() {
    let agent = short_lived(&["a", "b"], |_| {}).await;
    agent.until("both are ready", || agent.is_ready("a") && agent.is_ready("b")).await;
    agent.issuer.refuse_session("b", Code::Aborted);
    agent.issuer.close_streams_of("b", Code::Aborted);
    agent.renews("a", 2).await;
    assert_eq!((agent.issuer.hellos_of("a"), agent.connections()), (1, 1));
    assert!(!agent.task.is_finished());
}

#[tokio::test]
async fn a_session_whose_socket_cannot_be_bound_leaves_the_other_alone_and_says_why() {
    let agent = short_lived(&["a"], |_| {}).await;
    agent.until("session a is ready", || agent.is_ready("a")).await;
    agent.until("session b says why", || agent.marker("status").contains("b=")).await;
    assert!(agent.marker("status").contains("cannot listen on"), "{}", agent.marker("status"));
    agent.renews("a", 1).await;
    std::fs::create_dir(agent.home.path("b")).unwrap();
    agent.until("session b is restarted", || agent.is_ready("b")).await;
    assert_eq!(agent.issuer.hellos_of("a"), 1, "on one stream");
}

#[tokio::test]
async fn an_agent_that_can_serve_no_session_ends() {
    let mut agent = short_lived(&[], |_| {}).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), &mut agent.task).await.expect("it ends").unwrap();
    assert!(matches!(ended, Err(RunError::Listen(_))), "{ended:?}");
}
