//! A proxy between pods and the API server, with the API server's own certificate, which can delay, refuse or drop
//! connections. Only the selected pods are routed to it.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::filter::{self, Filter};
use super::tell;
use crate::cluster::Node;

type Body = BoxBody<Bytes, hyper::Error>;

/// How a request is handled.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Behaviour {
    Pass,
    /// Requests for this resource (`pods`) are accepted, and their answers have a head and no content; all others pass.
    Mute(String),
    /// The answer is delayed; events of an open watch are not.
    Slow(Duration),
    Answer(StatusCode),
}

/// A line written by the test.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Behave(Behaviour),
    Cut,
    Count,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    passed: u64,
    slowed: u64,
    muted: u64,
    refused: u64,
    cut: u64,
}

struct Proxy {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    state: Mutex<State>,
}

/// Runs until standard input ends. This thread must be in the node's network namespace.
pub(super) fn run(node: &Node, pods: &[Ipv4Addr]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(async {
        let proxy = Arc::new(Proxy::new(node)?);
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.context("listening on the node")?;
        let port = listener.local_addr()?.port();
        let filter = Filter::divert(pods, &node.api_address(), &format!("{}:{port}", node.address()))?;
        filter::end_connections(&node.address(), pods)?;
        tell(&json!({ "state": "under way" }));
        let served = proxy.serve(listener, commands()).await;
        filter.remove()?;
        served
    })
}

/// Lines from standard input, read by a separate thread.
fn commands() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Proxy {
    fn new(node: &Node) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_file_iter(node.pki("apiserver.crt"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(node.pki("apiserver.key"))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(node.pki("ca.crt"))? {
            roots.add(root?)?;
        }
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let state = State { behaviour: Behaviour::Pass, passed: 0, slowed: 0, muted: 0, refused: 0, cut: 0 };
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            state: Mutex::new(state),
        })
    }

    async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut commands: mpsc::UnboundedReceiver<String>,
    ) -> Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.context("accepting a connection")?;
                    connections.spawn(self.clone().connection(stream));
                }
                Some(_) = connections.join_next() => {}
                command = commands.recv() => {
                    let Some(line) = command else { return Ok(()) };
                    match Command::parse(&line)? {
                        Command::Behave(behaviour) => self.state().behaviour = behaviour,
                        Command::Cut => {
                            self.state().cut += connections.len() as u64;
                            connections.shutdown().await;
                        }
                        Command::Count => {}
                    }
                    let line = self.state().told();
                    tell(&line);
                }
            }
        }
    }

    /// Serves one connection of a pod; errors are visible to its client.
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let Ok(stream) = self.acceptor.accept(stream).await else { return };
        let service = service_fn(move |request| {
            let proxy = self.clone();
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let behaviour = {
            let mut state = self.state();
            let behaviour = state.behaviour.of(&request);
            match behaviour {
                Behaviour::Pass => state.passed += 1,
                Behaviour::Slow(_) => state.slowed += 1,
                Behaviour::Mute(_) => state.muted += 1,
                Behaviour::Answer(_) => state.refused += 1,
            }
            behaviour
        };
        let passed = match behaviour {
            Behaviour::Answer(status) => return refusal(status, "on purpose"),
            Behaviour::Mute(_) => return silence(),
            Behaviour::Pass => self.pass(request).await,
            Behaviour::Slow(delay) => {
                let answer = self.pass(request).await;
                tokio::time::sleep(delay).await;
                answer
            }
        };
        passed.unwrap_or_else(|error| refusal(StatusCode::BAD_GATEWAY, &error.to_string()))
    }

    /// Forwards over a new connection to the API server, which ends with the answer.
    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 6443)).await?;
        let stream = self.connector.connect(ServerName::try_from("localhost")?, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?.map(|body| body.boxed()))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Behaviour {
    /// How this request is handled: only requests for the muted resource do not pass.
    fn of<B>(&self, request: &Request<B>) -> Self {
        match self {
            Self::Mute(resource) if request.uri().path().rsplit('/').next() != Some(resource) => Self::Pass,
            behaviour => behaviour.clone(),
        }
    }
}

impl State {
    fn told(&self) -> serde_json::Value {
        let Self { passed, slowed, muted, refused, cut, .. } = self;
        json!({
            "state": "under way", "passed": passed, "slowed": slowed, "muted": muted, "refused": refused, "cut": cut,
        })
    }
}

impl Command {
    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        Ok(match *words.as_slice() {
            ["pass"] => Self::Behave(Behaviour::Pass),
            ["slow", millis] => Self::Behave(Behaviour::Slow(Duration::from_millis(millis.parse()?))),
            ["answer", status] => Self::Behave(Behaviour::Answer(status.parse()?)),
            ["mute", resource] => Self::Behave(Behaviour::Mute(resource.to_owned())),
            ["cut"] => Self::Cut,
            ["count"] => Self::Count,
            _ => bail!("`{line}` is none of: pass, slow MILLISECONDS, answer STATUS, mute RESOURCE, cut, count"),
        })
    }
}

/// A body that never ends and has no content.
struct Silence;

impl hyper::body::Body for Silence {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>> {
        Poll::Pending
    }
}

/// An answer with a head and no content.
fn silence() -> Response<Body> {
    let mut response = Response::new(Silence.boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A refusal in the API server's format: a Status.
fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": if status == StatusCode::TOO_MANY_REQUESTS { "TooManyRequests" } else { "InternalError" },
        "message": message, "code": status.as_u16(),
    });
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_resource_is_muted_and_all_others_pass() {
        let mute = Behaviour::Mute("pods".to_owned());
        let request = |uri: &str| Request::get(uri).body(()).unwrap();
        assert_eq!(mute.of(&request("/api/v1/pods?watch=true")), mute);
        for uri in ["/api/v1/namespaces?watch=true", "/api/v1/namespaces/shop/pods/one", "/openid/v1/jwks"] {
            assert_eq!(mute.of(&request(uri)), Behaviour::Pass, "{uri}");
        }
    }

    #[test]
    fn a_line_is_a_command_or_refused() {
        assert_eq!(Command::parse("slow 2000").unwrap(), Command::Behave(Behaviour::Slow(Duration::from_secs(2))));
        let refused = Behaviour::Answer(StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(Command::parse("answer 429").unwrap(), Command::Behave(refused));
        assert_eq!(Command::parse("mute pods").unwrap(), Command::Behave(Behaviour::Mute("pods".to_owned())));
        assert_eq!(Command::parse("cut").unwrap(), Command::Cut);
        for line in ["", "slow", "mute", "slow 2s", "answer 42", "cut it"] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }
}
