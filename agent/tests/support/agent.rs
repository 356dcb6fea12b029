//! An agent with one session.

use std::time::Duration;

use countersign_agent::run::serve_sessions;
use countersign_proto::issuer::v1::Identity;
use spiffe::WorkloadApiClient;
use tokio::task::AbortHandle;

use super::{AgentHome, FakeIssuer};

/// An agent with its issuer; both are stopped on drop.
pub struct TestAgent {
    pub home: AgentHome,
    pub issuer: FakeIssuer,
    pub task: AbortHandle,
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestAgent {
    /// Entitled to `identities`, at an issuer that is prepared before the agent starts.
    pub async fn start(identities: Vec<Identity>, prepare: impl FnOnce(&FakeIssuer)) -> Self {
        let (home, issuer) = (AgentHome::new(), FakeIssuer::start(identities).await);
        prepare(&issuer);
        let task = spawn(&home, &issuer);
        Self { home, issuer, task }
    }

    pub fn stop(&self) {
        self.task.abort();
    }

    /// With the same directories, after it was stopped.
    pub fn start_again(&mut self) {
        self.task = spawn(&self.home, &self.issuer);
    }

    pub async fn client(&self) -> WorkloadApiClient {
        WorkloadApiClient::connect_to(self.home.endpoint()).await.unwrap()
    }
}

fn spawn(home: &AgentHome, issuer: &FakeIssuer) -> AbortHandle {
    tokio::spawn(serve_sessions(home.config(issuer))).abort_handle()
}

/// Waits for a condition that only polling can see; whether it came true in time.
pub async fn comes_true(condition: impl Fn() -> bool) -> bool {
    let mut poll = tokio::time::interval(Duration::from_millis(2));
    let waiting = async {
        while !condition() {
            poll.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok()
}
