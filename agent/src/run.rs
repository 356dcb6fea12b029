//! `countersign-agent run`: serves every configured session until the pod ends.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinError;

use crate::config::{Config, SessionConfig};
use crate::files::Folder;
use crate::proof_api::{self, ProofApi};
use crate::publish::Published;
use crate::session::{KnownBundles, Session, SessionParts};
use crate::supervisor::{RESTART_DELAY, RunSession, Supervisor};
use crate::token::TokenFile;
use crate::upstream::{ControlPlaneRoots, Upstream};
use crate::wait::Readiness;
use crate::workload_api::{ListenError, WorkloadApi, serve};

/// Why the agent, or one session, cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The private directory cannot be written.
    #[error("cannot write to the agent's own directory {path}: {source}; is the volume countersign-private mounted?")]
    Private {
        /// The directory.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A socket cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No signal handler.
    #[error("cannot listen for signals: {0}")]
    Signal(io::Error),
    /// A defect: a session ended by itself.
    #[error("a session ended by itself")]
    Ended,
}

impl From<JoinError> for RunError {
    fn from(_: JoinError) -> Self {
        Self::Ended
    }
}

/// Serves until SIGTERM or SIGINT. Credentials stay in their files: the pod's volumes end with the pod, and a restarted
/// agent replaces them.
///
/// # Errors
/// See [`serve_sessions`]; also when signals cannot be handled.
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    tokio::select! {
        ended = serve_sessions(config) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Serves every session until dropped. A session that cannot be served is restarted on its own, while the others go on.
///
/// # Errors
/// The private directory cannot be written, or no session can be served: see [`RunError`].
pub async fn serve_sessions(config: Config) -> Result<(), RunError> {
    let readiness = Readiness::new(&config.private)
        .map_err(|source| RunError::Private { path: config.private.display().to_string(), source })?;
    let roots = ControlPlaneRoots::load(config.roots, &config.private);
    let mut supervisor = Supervisor::new(Agent {
        upstream: Arc::new(Upstream::new(config.issuer, config.issuer_name, roots)),
        token: TokenFile::new(config.token_file),
        file_mode: config.file_mode,
        bundle_documents: config.bundle_documents,
        bundles: Arc::default(),
        readiness: Arc::new(readiness),
    });
    for session in config.sessions {
        supervisor.start(session);
    }
    Err(supervisor.run().await.unwrap_or(RunError::Ended))
}

/// What the sessions share.
struct Agent {
    upstream: Arc<Upstream>,
    token: TokenFile,
    file_mode: u32,
    bundle_documents: bool,
    bundles: Arc<KnownBundles>,
    readiness: Arc<Readiness>,
}

impl RunSession<RunError> for Agent {
    fn serve(&self, config: SessionConfig) -> impl Future<Output = RunError> + Send + 'static {
        let directory = config.directory.clone();
        let (session, published, jwt_client) = Session::new(SessionParts {
            folder: Folder::new(&directory, self.file_mode).with_documents(self.bundle_documents),
            config,
            upstream: Arc::clone(&self.upstream),
            token: self.token.clone(),
            bundles: Arc::clone(&self.bundles),
            readiness: Arc::clone(&self.readiness),
        });
        async move {
            tokio::select! {
                () = session.run() => RunError::Ended,
                Err(error) = proof_api::serve(&directory, ProofApi::new(published.clone())) => error.into(),
                served = serve(&directory, WorkloadApi::new(published, jwt_client)) => {
                    served.map_or_else(RunError::from, |()| RunError::Ended)
                }
            }
        }
    }

    fn ended(&self, session: &SessionConfig, error: &RunError) {
        tracing::error!(session = session.name, %error, restart_in = ?RESTART_DELAY, "cannot serve this session; the others go on");
        let reason = Published::NotReady(error.to_string().into());
        if let Err(error) = self.readiness.record(session, &reason) {
            tracing::error!(%error, "cannot write the marker of readiness");
        }
    }
}
