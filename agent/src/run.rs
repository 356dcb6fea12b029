//! `countersign-agent run`: every configured session, until the pod ends.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::files::Folder;
use crate::session::{Session, SessionParts};
use crate::token::TokenFile;
use crate::upstream::{ControlPlaneRoots, Upstream};
use crate::wait::Readiness;
use crate::workload_api::{ListenError, WorkloadApi, serve};

/// Why the agent cannot run.
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

/// Serves until SIGTERM or SIGINT. Credentials stay in their files: the pod's volumes end with the pod, and a restarted
/// agent replaces them.
///
/// # Errors
/// See [`RunError`].
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    tokio::select! {
        ended = serve_sessions(config) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Serves every session until dropped.
///
/// # Errors
/// See [`RunError`].
pub async fn serve_sessions(config: Config) -> Result<(), RunError> {
    let readiness = Readiness::new(&config.private)
        .map_err(|source| RunError::Private { path: config.private.display().to_string(), source })?;
    let readiness = Arc::new(readiness);
    let roots = ControlPlaneRoots::load(config.roots, &config.private);
    let upstream = Arc::new(Upstream::new(config.issuer, config.issuer_name, roots));
    let token = TokenFile::new(config.token_file);
    let mut tasks: JoinSet<Result<(), RunError>> = JoinSet::new();
    for session in config.sessions {
        let directory = session.directory.clone();
        let (session, published, jwt_client) = Session::new(SessionParts {
            folder: Folder::new(&directory, config.file_mode),
            config: session,
            upstream: Arc::clone(&upstream),
            token: token.clone(),
            readiness: Arc::clone(&readiness),
        });
        tasks.spawn(async move {
            session.run().await;
            Ok(())
        });
        tasks.spawn(async move { Ok(serve(&directory, WorkloadApi::new(published, jwt_client)).await?) });
    }
    match tasks.join_next().await {
        Some(Ok(Err(error))) => Err(error),
        _ => Err(RunError::Ended),
    }
}
