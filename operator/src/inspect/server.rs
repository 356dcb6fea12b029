//! The Inspect API: answers replicas with this one's report.

use std::{sync::Arc, time::Duration};

use countersign_proto::inspect::v1::{
    ReportRequest, ReportResponse,
    inspect_server::{Inspect, InspectServer},
};
use tokio::{net::TcpListener, sync::mpsc};
use tonic::{Request, Response, Status, transport::Server};

use super::{
    credential::{Credential, CredentialError},
    report::Source,
};
use countersign_runtime::connections::{self, ConnectionLimits, ConnectionMetrics};

/// How long a request may take, its way included.
const REQUEST: Duration = Duration::from_secs(5);

/// Of replicas, each with one connection at a time; whoever else connects fails in the handshake.
const LIMITS: ConnectionLimits = ConnectionLimits {
    handshakes: 1,
    handshake_time: Duration::from_secs(5),
    waiting_per_address: 8,
    waiting: 256,
    per_address: 16,
    total: 512,
};

/// Why the Inspect API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No TLS.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The server ended.
    #[error("the Inspect API is served no longer: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Serves for as long as the process lives: a replica that drains is still asked for its streams.
///
/// # Errors
/// When it cannot.
pub async fn serve(listener: TcpListener, credential: Arc<Credential>, source: Source) -> Result<(), ServeError> {
    let tls = credential.server_config()?;
    let (ready, incoming) = mpsc::channel(16);
    // The published metrics count connections of agents: these are of replicas.
    tokio::spawn(connections::accept(
        listener,
        tls,
        LIMITS,
        ConnectionMetrics::default(),
        std::future::pending(),
        ready,
    ));
    Server::builder()
        .max_concurrent_streams(4)
        .timeout(REQUEST)
        .http2_max_header_list_size(16 * 1024)
        .add_service(InspectServer::new(Service { source }))
        .serve_with_incoming(connections::incoming(incoming))
        .await?;
    Ok(())
}

struct Service {
    source: Source,
}

#[tonic::async_trait]
impl Inspect for Service {
    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        // A hundred thousand streams take a while to count: not on a thread that serves agents.
        let source = self.source.clone();
        let report = tokio::task::spawn_blocking(move || source.report()).await;
        report.map(Response::new).map_err(|_| Status::internal("the report could not be made"))
    }
}
