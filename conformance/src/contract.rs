//! A harness by version 1 of the harness contract: the control port, the X.509 port and the lines that announce them. Every
//! SPIFFE decision is the client's.

use std::future::Future;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// Of one request.
const LIMIT: Duration = Duration::from_secs(8);
/// For what a server says.
const LISTEN: Duration = Duration::from_secs(4);

/// Why a client did not do what it was asked to.
#[derive(Debug)]
pub enum Refusal {
    /// It rejected the peer or the token.
    Rejected(String),
    /// It could not decide.
    Error(String),
}

/// A client of the Workload API that has an X509-SVID.
pub trait Client: Send + Sync + 'static {
    /// Its name and version, for reports.
    fn name(&self) -> (&'static str, &'static str);

    /// Authenticates each peer that connects, and [`greet`]s them.
    fn serve(&self, listener: TcpListener) -> impl Future<Output = Result<()>> + Send;

    /// Authenticates a server; returns its SPIFFE ID, and what it [`said`].
    fn dial(&self, address: &str) -> impl Future<Output = Result<(String, String), Refusal>> + Send;

    /// The SPIFFE ID and the claims of a JWT-SVID for this audience.
    fn validate(&self, token: &str, audience: &str) -> impl Future<Output = Result<(String, Value), Refusal>> + Send;

    /// JWT-SVIDs for these audiences, of one identity or of any.
    fn fetch(
        &self,
        audience: &[String],
        spiffe_id: Option<&str>,
    ) -> impl Future<Output = Result<Vec<JwtSvid>, Refusal>> + Send;
}

/// A fetched JWT-SVID.
#[derive(Debug)]
pub struct JwtSvid {
    /// Its subject.
    pub spiffe_id: String,
    /// The token.
    pub token: String,
}

/// Starts a client and serves both ports until `SIGTERM`.
///
/// # Errors
/// The client does not start, or a port cannot be served.
pub async fn run<C: Client>(start: impl Future<Output = Result<C>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        ended = serve(start) => ended,
        _ = terminate.recv() => Ok(()),
    }
}

async fn serve<C: Client>(start: impl Future<Output = Result<C>>) -> Result<()> {
    let client = Arc::new(start.await?);
    let x509 = TcpListener::bind("127.0.0.1:0").await.context("the X.509 port")?;
    let control = TcpListener::bind("127.0.0.1:0").await.context("the control port")?;
    let lines = format!(
        "SPIFFE_HARNESS_VERSION=1\nSPIFFE_X509_PORT={}\nSPIFFE_CONTROL_PORT={}\nREADY\n",
        x509.local_addr()?.port(),
        control.local_addr()?.port(),
    );
    std::io::stdout().write_all(lines.as_bytes()).context("announce the ports")?;
    std::io::stdout().flush().context("announce the ports")?;
    tokio::try_join!(client.serve(x509), serve_control(control, Arc::clone(&client))).map(drop)
}

/// Tells an authenticated client its SPIFFE ID (harness contract, section 3).
///
/// # Errors
/// The connection fails.
pub async fn greet(mut connection: impl AsyncWrite + Unpin, id: &str) -> std::io::Result<()> {
    connection.write_all(format!("{id}\n").as_bytes()).await?;
    connection.shutdown().await
}

/// What a server says on an authenticated connection: another harness says whom it saw. Why it says nothing, otherwise.
pub async fn said(connection: impl AsyncRead + Unpin) -> String {
    let mut line = String::new();
    match timeout(LISTEN, BufReader::new(connection).read_line(&mut line)).await {
        Ok(Ok(_)) => line.trim_end().to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "nothing in time".to_owned(),
    }
}

async fn serve_control<C: Client>(listener: TcpListener, client: Arc<C>) -> Result<()> {
    let router = Router::new()
        .route("/v1/jwt/validate", post(validate::<C>))
        .route("/v1/jwt/fetch", post(fetch::<C>))
        .route("/v1/x509/dial", post(dial::<C>))
        .route("/v1/info", get(info::<C>))
        .with_state(client);
    axum::serve(listener, router).await.context("the control port")
}

type Answer = (StatusCode, Json<Value>);

#[derive(Deserialize)]
struct ValidateRequest {
    token: String,
    audience: String,
}

async fn validate<C: Client>(State(client): State<Arc<C>>, Json(request): Json<ValidateRequest>) -> Answer {
    let validated = bounded(client.validate(&request.token, &request.audience)).await;
    answer(validated.map(|(spiffe_id, claims)| json!({"spiffe_id": spiffe_id, "claims": claims})))
}

#[derive(Deserialize)]
struct FetchRequest {
    audience: Vec<String>,
    #[serde(default)]
    spiffe_id: String,
}

async fn fetch<C: Client>(State(client): State<Arc<C>>, Json(request): Json<FetchRequest>) -> Answer {
    let spiffe_id = Some(request.spiffe_id.as_str()).filter(|id| !id.is_empty());
    let fetched = bounded(client.fetch(&request.audience, spiffe_id)).await;
    let svid = |svid: JwtSvid| json!({"spiffe_id": svid.spiffe_id, "token": svid.token, "hint": ""});
    answer(fetched.map(|svids| json!({"svids": svids.into_iter().map(svid).collect::<Vec<_>>()})))
}

#[derive(Deserialize)]
struct DialRequest {
    address: String,
}

async fn dial<C: Client>(State(client): State<Arc<C>>, Json(request): Json<DialRequest>) -> Answer {
    let dialed = bounded(client.dial(&request.address)).await;
    answer(dialed.map(|(spiffe_id, said)| json!({"spiffe_id": spiffe_id, "message": said})))
}

async fn info<C: Client>(State(client): State<Arc<C>>) -> Answer {
    let (name, version) = client.name();
    answer(Ok(json!({"sdk": name, "sdk_version": version, "language": "rust"})))
}

async fn bounded<T>(operation: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(LIMIT, operation).await.unwrap_or_else(|_| Err(Refusal::Error("not in time".to_owned())))
}

fn answer(outcome: Result<Value, Refusal>) -> Answer {
    match outcome {
        Ok(mut fields) => {
            if let Some(fields) = fields.as_object_mut() {
                fields.insert("status".to_owned(), json!("ok"));
            }
            (StatusCode::OK, Json(fields))
        }
        Err(Refusal::Rejected(message)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"status": "rejected", "message": message})))
        }
        Err(Refusal::Error(message)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"status": "error", "message": message})))
        }
    }
}

/// Shows why a peer was not let in, for the reader of the log.
#[expect(clippy::print_stderr, reason = "standard output is for the lines of the contract")]
pub fn log(line: &str) {
    eprintln!("{line}");
}
