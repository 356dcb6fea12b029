//! Many agents in one process: the agent crate's own sessions, each with its own connection, token file and directory, as
//! in a pod.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use countersign_agent::{
    config::SessionConfig,
    files::Folder,
    publish::Published,
    session::{Session, SessionParts},
    token::TokenFile,
    wait::Readiness,
};
use countersign_core::id::TrustDomain;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use crate::{figures::Progress, relay::Relay, streams::ControlPlane, tokens::Proven};

/// Timeout for all agents to get their identities.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Running agents, stopped on drop.
#[derive(Debug)]
pub(crate) struct Agents {
    published: Vec<watch::Receiver<Published>>,
    /// In the same order.
    sessions: Vec<AbortHandle>,
    _running: JoinSet<()>,
}

impl Agents {
    /// Starts an agent for each pod. Their files are below `dir`, which should be in memory as in a pod.
    pub(crate) fn start(control_plane: &ControlPlane, relays: &[Relay], pods: &[Proven], dir: &Path) -> Result<Self> {
        let (mut running, mut sessions, mut published) = (JoinSet::new(), Vec::new(), Vec::new());
        for ((number, proven), relay) in pods.iter().enumerate().zip(relays.iter().cycle()) {
            let (session, receiver) = session(control_plane, relay, proven, &dir.join(number.to_string()))?;
            published.push(receiver);
            sessions.push(running.spawn(session.run()));
        }
        Ok(Self { published, sessions, _running: running })
    }

    /// Waits until every agent has its identity; returns how long that took.
    pub(crate) async fn ready(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let mut progress = Progress::new("agents with their identity", self.published.len());
        for (number, published) in self.published.iter_mut().enumerate() {
            let ready = published.wait_for(|published| matches!(published, Published::Ready(_)));
            let left = TIMEOUT.saturating_sub(begun.elapsed());
            let in_time = tokio::time::timeout(left, ready).await;
            if in_time.is_err() {
                bail!("agent {number} has no identity after {TIMEOUT:?}");
            }
            in_time.context("in time")?.context("an agent ended")?;
            progress.at(number + 1);
        }
        progress.done(self.published.len());
        Ok(begun.elapsed())
    }

    /// Stops all but the first `count`.
    pub(crate) fn keep(&mut self, count: usize) {
        self.published.truncate(count);
        self.sessions.drain(count.min(self.sessions.len())..).for_each(|session| session.abort());
    }

    pub(crate) fn len(&self) -> usize {
        self.published.len()
    }

    /// The lowest and the highest sequence of a trust domain's bundle that an agent publishes; 0 for an agent without it.
    pub(crate) fn bundle_sequences(&self, trust_domain: &TrustDomain) -> (u64, u64) {
        let sequence = |published: &watch::Receiver<Published>| match &*published.borrow() {
            Published::Ready(credentials) => credentials.trust.get(trust_domain).map_or(0, |bundle| bundle.sequence),
            Published::NotReady(_) | Published::NoIdentity(_) => 0,
        };
        let sequences = || self.published.iter().map(sequence);
        (sequences().min().unwrap_or(0), sequences().max().unwrap_or(0))
    }

    /// The number of agents that have their identity now.
    pub(crate) fn ready_now(&self) -> usize {
        self.published.iter().filter(|published| matches!(&*published.borrow(), Published::Ready(_))).count()
    }
}

fn session(
    control_plane: &ControlPlane,
    relay: &Relay,
    proven: &Proven,
    dir: &Path,
) -> Result<(Session, watch::Receiver<Published>)> {
    let make = |name: &str| -> Result<PathBuf> {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    };
    let (directory, private) = (make("identity")?, make("private")?);
    let token = dir.join("token");
    std::fs::write(&token, &proven.token)?;
    let (session, published, _jwt_client) = Session::new(SessionParts {
        folder: Folder::new(&directory, 0o444),
        config: SessionConfig { name: String::new(), directory },
        upstream: Arc::new(control_plane.upstream(relay.address, &private)),
        token: TokenFile::new(token),
        bundles: Arc::default(),
        readiness: Arc::new(Readiness::new(&private)?),
    });
    Ok((session, published))
}
