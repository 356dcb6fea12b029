//! `countersign-agent wait`: delays the application (as `postStart` of the agent's container) until every session has an
//! identity. On time-out the reason becomes the container's termination message, and the container restarts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::config::{SessionConfig, WaitConfig};
use crate::publish::Published;

/// How often the marker is read: the file is in memory, and the application's start waits for it.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Not every session had its identity in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no identity after {waited:?}: {reason}")]
pub struct TimedOut {
    /// The time-out.
    pub waited: Duration,
    /// For each session that is not ready, the reason that the running agent recorded.
    pub reason: String,
}

/// Returns once every session is ready.
///
/// # Errors
/// [`TimedOut`] after `timeout`.
pub async fn until_ready(config: &WaitConfig, timeout: Duration) -> Result<(), TimedOut> {
    let deadline = Instant::now() + timeout;
    let mut poll = tokio::time::interval(POLL_INTERVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        poll.tick().await;
        let missing = missing(config);
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(TimedOut { waited: timeout, reason: reasons(config, &missing) });
        }
    }
}

fn missing(config: &WaitConfig) -> Vec<&SessionConfig> {
    let ready = std::fs::read_to_string(ready_file(&config.private)).unwrap_or_default();
    let is_ready = |session: &SessionConfig| ready.lines().any(|line| line == session.label());
    config.sessions.iter().filter(|session| !is_ready(session)).collect()
}

fn reasons(config: &WaitConfig, missing: &[&SessionConfig]) -> String {
    let Ok(status) = std::fs::read_to_string(status_file(&config.private)) else {
        return "the agent has not started; its log says why (kubectl logs, container countersign-agent)".into();
    };
    let reason_of = |session: &SessionConfig| {
        let label = session.label();
        let line = status.lines().find_map(|line| line.strip_prefix(&label)?.strip_prefix('\t'));
        let line = line.unwrap_or("the agent has said nothing of it yet");
        if session.name.is_empty() { line.to_owned() } else { format!("container {}: {line}", session.name) }
    };
    missing.iter().map(|session| reason_of(session)).collect::<Vec<_>>().join("; ")
}

/// The marker files that `wait` reads: `ready` names the sessions that have their identity, `status` says why others do not.
#[derive(Debug)]
pub struct Readiness {
    private: PathBuf,
    /// The reason by label; `None` when ready.
    sessions: Mutex<BTreeMap<String, Option<String>>>,
}

impl Readiness {
    /// Starts with no session ready: the marker of an earlier run is cleared.
    ///
    /// # Errors
    /// The agent's own directory cannot be written.
    pub fn new(private: impl Into<PathBuf>) -> io::Result<Self> {
        let readiness = Self { private: private.into(), sessions: Mutex::default() };
        readiness.write(&BTreeMap::new())?;
        Ok(readiness)
    }

    /// Records the state of `session`. A session that was ready once stays ready: the marker is for the start.
    ///
    /// # Errors
    /// The marker cannot be written.
    pub fn record(&self, session: &SessionConfig, published: &Published) -> io::Result<()> {
        let reason = match published {
            Published::Ready(_) => None,
            Published::NotReady(reason) | Published::NoIdentity(reason) => Some(reason.replace('\n', " ")),
        };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = sessions.get(&session.label());
        if before == Some(&None) || before == Some(&reason) {
            return Ok(());
        }
        sessions.insert(session.label(), reason);
        self.write(&sessions)
    }

    fn write(&self, sessions: &BTreeMap<String, Option<String>>) -> io::Result<()> {
        let (mut ready, mut status) = (String::new(), String::new());
        for (label, reason) in sessions {
            match reason {
                None => ready.extend([label, "\n"]),
                Some(reason) => status.extend([label, "\t", reason, "\n"]),
            }
        }
        replace(&status_file(&self.private), &status)?;
        replace(&ready_file(&self.private), &ready)
    }
}

/// Replaces a file as a whole: a reader sees the old content or the new.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, content)?;
    std::fs::rename(next, path)
}

fn ready_file(private: &Path) -> PathBuf {
    private.join("ready")
}

fn status_file(private: &Path) -> PathBuf {
    private.join("status")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Readiness, until_ready};
    use crate::config::{SessionConfig, WaitConfig};
    use crate::publish::{Credentials, Published};

    fn config(private: &std::path::Path) -> WaitConfig {
        let session = |name: &str| SessionConfig { name: name.into(), directory: format!("/sessions/{name}").into() };
        WaitConfig { sessions: vec![session("a"), session("b")], private: private.into() }
    }

    fn ready() -> Published {
        Published::Ready(Arc::new(Credentials {
            wit_revision: 1,
            revision: 0,
            svids: Vec::new(),
            trust: Arc::default(),
            terms: Arc::default(),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_every_session() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let readiness = Readiness::new(directory.path()).unwrap();
        readiness.record(&config.sessions[0], &ready()).unwrap();
        readiness.record(&config.sessions[1], &Published::NoIdentity("no WorkloadIdentity selects it".into())).unwrap();
        let error = until_ready(&config, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.reason, "container b: no WorkloadIdentity selects it");
        readiness.record(&config.sessions[1], &ready()).unwrap();
        assert_eq!(until_ready(&config, Duration::from_secs(1)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn says_so_when_the_agent_never_started() {
        let directory = tempfile::tempdir().unwrap();
        let error = until_ready(&config(directory.path()), Duration::from_millis(20)).await.unwrap_err();
        assert!(error.to_string().contains("has not started"), "{error}");
    }

    #[test]
    fn a_marker_of_an_earlier_run_counts_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ready"), "a=/sessions/a\n").unwrap();
        Readiness::new(directory.path()).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("ready")).unwrap(), "");
    }
}
