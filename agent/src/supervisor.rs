//! Supervises sessions: each runs in a task of its own and is restarted on its own, so that the end of one affects no other.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};

use crate::config::SessionConfig;

/// The time between the end of a session and its restart.
pub(crate) const RESTART_DELAY: Duration = Duration::from_secs(5);

/// How sessions are run. `E` is why one ended.
pub(crate) trait RunSession<E> {
    /// Serves a session; returns only when that is no longer possible.
    fn serve(&self, session: SessionConfig) -> impl Future<Output = E> + Send + 'static;

    /// A session ended, and is restarted after [`RESTART_DELAY`].
    fn ended(&self, session: &SessionConfig, error: &E);
}

/// The sessions of an agent.
pub(crate) struct Supervisor<R, E> {
    runner: R,
    running: JoinSet<E>,
    sessions: HashMap<Id, SessionConfig>,
    /// Those that ended; each task returns when its session is to be restarted.
    restarting: JoinSet<SessionConfig>,
}

impl<R: RunSession<E>, E: From<JoinError> + Send + 'static> Supervisor<R, E> {
    /// Without sessions.
    pub(crate) fn new(runner: R) -> Self {
        Self { runner, running: JoinSet::new(), sessions: HashMap::new(), restarting: JoinSet::new() }
    }

    /// Starts a session beside the others.
    pub(crate) fn start(&mut self, session: SessionConfig) {
        let task = self.running.spawn(self.runner.serve(session.clone()));
        self.sessions.insert(task.id(), session);
    }

    /// Returns once no session is running any more, with the error of the last one; before that, every session that ends is
    /// restarted.
    pub(crate) async fn run(mut self) -> Option<E> {
        loop {
            tokio::select! {
                ended = self.running.join_next_with_id() => {
                    let (id, error) = match ended? {
                        Ok((id, error)) => (id, error),
                        Err(error) => (error.id(), error.into()),
                    };
                    let Some(session) = self.sessions.remove(&id) else { continue };
                    if self.running.is_empty() {
                        return Some(error);
                    }
                    self.runner.ended(&session, &error);
                    self.restarting.spawn(async move {
                        tokio::time::sleep(RESTART_DELAY).await;
                        session
                    });
                }
                Some(Ok(session)) = self.restarting.join_next() => self.start(session),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::task::JoinError;
    use tokio::time::Instant;

    use super::{RESTART_DELAY, RunSession, Supervisor};
    use crate::config::SessionConfig;

    /// Sessions named `fails` end at once, those named `panics` panic, others run for ever.
    #[derive(Clone, Default)]
    struct Runner {
        started: Arc<Mutex<Vec<String>>>,
        ended: Arc<Mutex<Vec<String>>>,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum End {
        Failed(String),
        Panicked,
    }

    impl From<JoinError> for End {
        fn from(_: JoinError) -> Self {
            Self::Panicked
        }
    }

    impl RunSession<End> for Runner {
        fn serve(&self, session: SessionConfig) -> impl Future<Output = End> + Send + 'static {
            self.started.lock().unwrap().push(session.name.clone());
            async move {
                match session.name.as_str() {
                    "fails" | "fails too" => End::Failed(session.name),
                    "panics" => panic!("a session panics"),
                    _ => std::future::pending().await,
                }
            }
        }

        fn ended(&self, session: &SessionConfig, _: &End) {
            self.ended.lock().unwrap().push(session.name.clone());
        }
    }

    fn supervise(names: &[&str]) -> (Runner, Supervisor<Runner, End>) {
        let runner = Runner::default();
        let mut supervisor = Supervisor::new(runner.clone());
        for name in names {
            supervisor.start(SessionConfig { name: (*name).into(), directory: format!("/{name}").into() });
        }
        (runner, supervisor)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_ends_is_restarted_and_the_others_run_on() {
        for name in ["fails", "panics"] {
            let (runner, supervisor) = supervise(&["runs", name]);
            let three_restarts = RESTART_DELAY * 3 + RESTART_DELAY / 2;
            assert!(tokio::time::timeout(three_restarts, supervisor.run()).await.is_err(), "it runs on");
            assert_eq!(*runner.started.lock().unwrap(), ["runs", name, name, name, name]);
            assert_eq!(*runner.ended.lock().unwrap(), [name; 4]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_when_no_session_is_running() {
        let started = Instant::now();
        let (_, supervisor) = supervise(&["fails", "fails too"]);
        assert!(matches!(supervisor.run().await, Some(End::Failed(_))));
        let (_, supervisor) = supervise(&["fails"]);
        assert_eq!(supervisor.run().await, Some(End::Failed("fails".into())));
        assert_eq!(started.elapsed(), std::time::Duration::ZERO);
        let (_, supervisor) = supervise(&[]);
        assert_eq!(supervisor.run().await, None);
    }
}
