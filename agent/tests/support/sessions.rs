//! An agent with two sessions.

use std::sync::atomic::Ordering;

use countersign_agent::run::{RunError, serve_sessions};
use countersign_proto::issuer::v1::Identity;
use tokio::task::JoinHandle;

use super::agent::comes_true;
use super::{AgentHome, FakeIssuer};

/// An agent with the sessions `a` and `b`; stopped on drop.
pub struct TwoSessions {
    pub home: AgentHome,
    pub issuer: FakeIssuer,
    pub task: JoinHandle<Result<(), RunError>>,
}

impl Drop for TwoSessions {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TwoSessions {
    /// Entitled to `identity`, with these of their directories.
    pub async fn start(identity: Identity, directories: &[&str], prepare: impl FnOnce(&FakeIssuer)) -> Self {
        let (home, issuer) = (AgentHome::new(), FakeIssuer::start(vec![identity]).await);
        for directory in directories {
            std::fs::create_dir(home.path(directory)).unwrap();
        }
        prepare(&issuer);
        let task = tokio::spawn(serve_sessions(home.config_of_sessions(&issuer, &["a", "b"])));
        Self { home, issuer, task }
    }

    /// Waits for a condition that only polling can see.
    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        assert!(comes_true(condition).await, "{what}: {}", self.marker("status"));
    }

    pub fn marker(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.path("private").join(name)).unwrap_or_default()
    }

    pub fn is_ready(&self, session: &str) -> bool {
        self.marker("ready").lines().any(|line| line.starts_with(&format!("{session}=")))
    }

    pub fn certificate(&self, session: &str) -> String {
        std::fs::read_to_string(self.home.path(session).join("credentials/tls.crt")).unwrap_or_default()
    }

    pub async fn renews(&self, session: &str, times: usize) {
        for _ in 0..times {
            let before = self.certificate(session);
            self.until("a renewal", || self.certificate(session) != before).await;
        }
    }

    pub fn connections(&self) -> usize {
        self.issuer.state.connections.load(Ordering::Relaxed)
    }
}
