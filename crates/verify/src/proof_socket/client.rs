//! A client of the agent's proof socket, by which a workload proves who it is with a key that it never has.

use std::{
    env,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::Client as HttpClient,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::{
    ErrorMessage, METADATA_FIELD, PROOF_SOCKET, PROVE_REQUEST_PATH, PROVE_RESPONSE_PATH, Proof, ProveRequest,
    ProveResponse, Refused, VERIFY_REQUEST_PATH, VERIFY_RESPONSE_PATH, VerifiedRequest, VerifiedResponse,
    VerifyRequest, VerifyResponse,
};
use crate::source::{Address, AddressError};

/// The agent is on the same machine; one that does not answer within this is away.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer that is read: a few tokens.
const LONGEST_ANSWER: usize = 256 * 1024;

/// How long a connection is kept for later requests: less than the agent keeps it.
const IDLE: Duration = Duration::from_secs(30);

/// Connections that are kept for later requests.
const MAX_IDLE: usize = 8;

/// The agent's proof socket. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct ProofSocket {
    http: HttpClient<UnixConnector, Full<Bytes>>,
}

/// Why the agent did not answer with what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofSocketError {
    /// Not the address of a socket.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// The environment variable is not set.
    #[error("{PROOF_SOCKET} is not set: it names the agent's proof socket, such as unix:///run/countersign/proof.sock")]
    NoAddress,
    /// The socket cannot be connected to, or the connection ended.
    #[error("the agent's proof socket cannot be asked: {0}")]
    Connection(Arc<str>),
    /// No answer.
    #[error("the agent did not answer on its proof socket within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// Not an answer of the agent.
    #[error("the agent's answer is not one of the proof socket, or longer than {LONGEST_ANSWER} bytes")]
    Malformed,
    /// The agent says why.
    #[error("the agent refuses with {status}: {error}")]
    Status {
        /// 400, 403, 404, 413, 429 or 503 among others.
        status: u16,
        /// As the agent says.
        error: String,
    },
}

/// What the agent says of a message: who it is of, or why it must not be processed.
pub type Verdict<T> = Result<T, Refused>;

impl ProofSocket {
    /// At the address in the environment variable [`PROOF_SOCKET`]. It need not be there yet.
    ///
    /// # Errors
    /// When the variable is missing or is not the address of a Unix socket.
    pub fn from_env() -> Result<Self, ProofSocketError> {
        Self::from_address(&env::var(PROOF_SOCKET).map_err(|_| ProofSocketError::NoAddress)?)
    }

    /// At an address such as `unix:///run/countersign/proof.sock`.
    ///
    /// # Errors
    /// When it is not the address of a Unix socket.
    pub fn from_address(address: &str) -> Result<Self, ProofSocketError> {
        match address.parse()? {
            Address::Unix(path) => Ok(Self::at(path)),
            Address::Tcp(_) => Err(AddressError::Scheme.into()),
        }
    }

    /// At this path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let connector = UnixConnector { path: path.into().into() };
        let mut builder = HttpClient::builder(TokioExecutor::new());
        Self {
            http: builder
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MAX_IDLE)
                .build(connector),
        }
    }

    /// The proof of a request that will be sent.
    ///
    /// # Errors
    /// When the agent makes none.
    pub async fn prove_request(&self, ask: &ProveRequest) -> Result<Proof, ProofSocketError> {
        self.ask(PROVE_REQUEST_PATH, ask).await
    }

    /// The signature of a response that will be sent.
    ///
    /// # Errors
    /// When the agent makes none.
    pub async fn prove_response(&self, ask: &ProveResponse) -> Result<Proof, ProofSocketError> {
        self.ask(PROVE_RESPONSE_PATH, ask).await
    }

    /// Who sent a request that was received.
    ///
    /// # Errors
    /// When the agent does not say.
    pub async fn verify_request(&self, ask: &VerifyRequest) -> Result<Verdict<VerifiedRequest>, ProofSocketError> {
        self.judge(VERIFY_REQUEST_PATH, ask).await
    }

    /// Who signed a response that was received.
    ///
    /// # Errors
    /// When the agent does not say.
    pub async fn verify_response(&self, ask: &VerifyResponse) -> Result<Verdict<VerifiedResponse>, ProofSocketError> {
        self.judge(VERIFY_RESPONSE_PATH, ask).await
    }

    async fn ask<A: DeserializeOwned>(&self, path: &str, ask: &impl Serialize) -> Result<A, ProofSocketError> {
        match self.send(path, ask).await? {
            (StatusCode::OK, body) => read(&body),
            (status, body) => Err(failure(status, &body)),
        }
    }

    async fn judge<A: DeserializeOwned>(
        &self,
        path: &str,
        ask: &impl Serialize,
    ) -> Result<Verdict<A>, ProofSocketError> {
        match self.send(path, ask).await? {
            (StatusCode::OK, body) => read(&body).map(Ok),
            // It may also be the socket that refuses.
            (StatusCode::FORBIDDEN, body) => {
                read(&body).map(Err).map_err(|_: ProofSocketError| failure(StatusCode::FORBIDDEN, &body))
            }
            (status, body) => Err(failure(status, &body)),
        }
    }

    async fn send(&self, path: &str, ask: &impl Serialize) -> Result<(StatusCode, Bytes), ProofSocketError> {
        let body = serde_json::to_vec(ask).map_err(|_| ProofSocketError::Malformed)?;
        let request = Request::post(format!("http://localhost{path}"))
            .header(METADATA_FIELD, "true")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| ProofSocketError::Malformed)?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| connection(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            Ok((status, body.map_err(|_| ProofSocketError::Malformed)?.to_bytes()))
        };
        timeout(TIMEOUT, exchange).await.map_err(|_| ProofSocketError::Timeout)?
    }
}

fn read<'a, A: Deserialize<'a>>(body: &'a [u8]) -> Result<A, ProofSocketError> {
    serde_json::from_slice(body).map_err(|_| ProofSocketError::Malformed)
}

fn failure(status: StatusCode, body: &[u8]) -> ProofSocketError {
    match read(body) {
        Ok(ErrorMessage { error }) => ProofSocketError::Status { status: status.as_u16(), error },
        Err(_) => ProofSocketError::Status { status: status.as_u16(), error: "without a reason".to_owned() },
    }
}

/// With what is behind it, which the error itself leaves out.
fn connection(error: &(dyn std::error::Error + 'static)) -> ProofSocketError {
    let innermost = std::iter::successors(Some(error), |error| error.source()).last();
    ProofSocketError::Connection(innermost.unwrap_or(error).to_string().into())
}

/// Connects to the socket, whatever the URI says.
#[derive(Clone, Debug)]
struct UnixConnector {
    path: Arc<std::path::Path>,
}

impl tower::Service<http::Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let path = self.path.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) })
    }
}
