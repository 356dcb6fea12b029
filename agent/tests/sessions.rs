//! Several sessions of one agent: what happens to one does not affect the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_agent::run::{RunError, serve_sessions};
use support::issuer::identity;
use support::{AgentHome, DEFAULT_ID, FakeIssuer};
use tokio::task::JoinHandle;
use tonic::Code;

/// Seconds: a certificate of this lifetime is renewed every second.
const SHORT_TTL: u64 = 2;

/// An agent with the sessions `a` and `b`, whose certificates are short-lived; stopped on drop.
struct TwoSessions {
    home: AgentHome,
    issuer: FakeIssuer,
    task: JoinHandle<Result<(), RunError>>,
}

impl Drop for TwoSessions {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TwoSessions {
    async fn start(directories: &[&str], prepare: impl FnOnce(&FakeIssuer)) -> Self {
        let (home, issuer) = (AgentHome::new(), FakeIssuer::start(vec![identity(DEFAULT_ID)]).await);
        for directory in directories {
            std::fs::create_dir(home.path(directory)).unwrap();
        }
        issuer.x509_ttl(SHORT_TTL);
        prepare(&issuer);
        let task = tokio::spawn(serve_sessions(home.config_of_sessions(&issuer, &["a", "b"])));
        Self { home, issuer, task }
    }

    /// Waits for a condition that only polling can see.
    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let mut poll = tokio::time::interval(Duration::from_millis(2));
        let waiting = async {
            while !condition() {
                poll.tick().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(in_time.is_ok(), "{what}: {}", self.marker("status"));
    }

    fn marker(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.path("private").join(name)).unwrap_or_default()
    }

    fn is_ready(&self, session: &str) -> bool {
        self.marker("ready").lines().any(|line| line.starts_with(&format!("{session}=")))
    }

    fn certificate(&self, session: &str) -> String {
        std::fs::read_to_string(self.home.path(session).join("credentials/tls.crt")).unwrap_or_default()
    }

    async fn renews(&self, session: &str, times: usize) {
        for _ in 0..times {
            let before = self.certificate(session);
            self.until("a renewal", || self.certificate(session) != before).await;
        }
    }

    fn connections(&self) -> usize {
        self.issuer.state.connections.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_session_refused_for_good_leaves_the_other_and_their_connection_alone() {
    futures::join!(refused_for_good(Code::InvalidArgument), refused_for_good(Code::Unauthenticated));
}

async fn refused_for_good(code: Code) {
    let agent = TwoSessions::start(&["a", "b"], |issuer| issuer.refuse_session("b", code)).await;
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
    let agent = TwoSessions::start(&["a", "b"], |_| {}).await;
    agent.until("both are ready", || agent.is_ready("a") && agent.is_ready("b")).await;
    agent.issuer.refuse_session("b", Code::Aborted);
    agent.issuer.close_streams_of("b", Code::Aborted);
    agent.renews("a", 2).await;
    assert_eq!((agent.issuer.hellos_of("a"), agent.connections()), (1, 1));
    assert!(!agent.task.is_finished());
}

#[tokio::test]
async fn a_session_whose_socket_cannot_be_bound_leaves_the_other_alone_and_says_why() {
    let agent = TwoSessions::start(&["a"], |_| {}).await;
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
    let mut agent = TwoSessions::start(&[], |_| {}).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), &mut agent.task).await.expect("it ends").unwrap();
    assert!(matches!(ended, Err(RunError::Listen(_))), "{ended:?}");
}
