//! Asks another replica for its report: one connection, one question.

use std::{io, net::SocketAddr, time::Duration};

use countersign_proto::inspect::v1::{ReportRequest, ReportResponse, inspect_client::InspectClient};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Endpoint, Uri};

use super::{
    MAX_REPORT,
    credential::{Credential, CredentialError},
};

/// How long it may take in all.
const ASKING: Duration = Duration::from_secs(5);

/// Why a replica cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// We have no certificate to show.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// No connection, or not to a replica.
    #[error("no connection to {address}: {reason}")]
    Connect {
        /// Where it was tried.
        address: SocketAddr,
        /// The cause at the bottom.
        reason: String,
    },
    /// It does not answer as it should.
    #[error("{address} does not report: {status}")]
    Answer {
        /// Who.
        address: SocketAddr,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// Too slow.
    #[error("no report from {0} within {ASKING:?}")]
    TooSlow(SocketAddr),
}

/// The report of the replica at `address`.
///
/// # Errors
/// When there is none to be had in time.
pub async fn ask(address: SocketAddr, credential: &Credential) -> Result<ReportResponse, AskError> {
    let asking = tokio::time::timeout(ASKING, report(address, credential));
    asking.await.unwrap_or(Err(AskError::TooSlow(address)))
}

async fn report(address: SocketAddr, credential: &Credential) -> Result<ReportResponse, AskError> {
    let (tls, name) = (TlsConnector::from(credential.client_config()?), credential.name());
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, name) = (tls.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(tls.connect(name, stream).await?))
        }
    });
    let channel = Endpoint::from_static("http://replica")
        .connect_with_connector(connector)
        .await
        .map_err(|error| AskError::Connect { address, reason: bottom(&error) })?;
    let mut client = InspectClient::new(channel).max_decoding_message_size(MAX_REPORT);
    let answer = client.report(ReportRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| AskError::Answer { address, status: Box::new(status) })
}

/// The cause behind all causes: tonic's own words say only that it did not work.
fn bottom(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
