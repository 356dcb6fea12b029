//! Calls of a service.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow, ensure};
use axum::body::Bytes;
use clap::Args;
use countersign_verify::{
    Authorizer, MtlsConnector, Source,
    layer::{ProofAudience, ProofLayer},
    proof::Method,
    proof_socket::ProofSocket,
    prover::Prover,
};
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tower::{Layer, Service, ServiceExt as _};

use crate::{method, say, source};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The service that is called.
#[derive(Debug, Args)]
pub(crate) struct Next {
    /// Its URL: `https` with `mtls`, `jwt-svid` and `--proxy`, `http` otherwise.
    #[arg(long, required = false)]
    next: Uri,
    /// How this workload proves who it is.
    #[arg(long, required = false, value_parser = method)]
    prove: Method,
    /// The audience of a JWT-SVID. Of other proofs it is the target URI.
    #[arg(long, default_value = "")]
    audience: String,
    /// The SPIFFE ID that the service must have: of the connection, or of signed responses.
    #[arg(long, required = false)]
    expect: String,
    /// The SPIFFE ID of the proxy at which TLS ends, where requests with proofs are sent over TLS.
    #[arg(long)]
    proxy: Option<String>,
    /// Proofs are made with the key that the Workload API hands out, instead of by the agent.
    #[arg(long)]
    own_key: bool,
    /// With `own_key`: the first WIT-SVID is used on, as by somebody who has copied it with its key.
    #[arg(long)]
    stolen: bool,
}

impl Next {
    /// By requests that are signed by the agent.
    pub(crate) fn signed(next: Uri, expect: String) -> Self {
        Self {
            next,
            prove: Method::HttpSignature,
            audience: String::new(),
            expect,
            proxy: None,
            own_key: false,
            stolen: false,
        }
    }
}

type Sender = dyn Fn(Request<Full<Bytes>>) -> BoxFuture<'static, Result<(StatusCode, String)>> + Send + Sync;

/// Calls one service. Clones share connections.
#[derive(Clone)]
pub(crate) struct Client {
    url: Uri,
    send: Arc<Sender>,
}

impl Client {
    pub(crate) async fn new(next: &Next, source: &Source) -> Result<Self> {
        if next.own_key {
            source.clone().ready_to_prove().await?;
        }
        let servers = Authorizer::id(&next.expect)?;
        let is_tls = next.next.scheme_str() == Some("https");
        ensure!(
            is_tls == (next.proxy.is_some() || matches!(next.prove, Method::Mtls | Method::JwtSvid)),
            "{} is called by {}",
            next.next,
            next.prove
        );
        let send: Arc<Sender> = match next.prove {
            Method::Mtls => sender(https(source.mtls_client_config(servers)?)),
            Method::JwtSvid => {
                let layer = ProofLayer::jwt_svid(source.clone(), &next.audience);
                sender(layer.layer(https(source.tls_client_config(servers)?)))
            }
            Method::Wpt if next.stolen => sender(wpt(source.wit_svid()?).layer(http())),
            Method::Wpt if next.own_key => proven(wpt(source.clone()), next, source)?,
            Method::Wpt => proven(wpt(ProofSocket::from_env()?), next, source)?,
            _ => {
                let layer = if next.own_key { signed(source.clone()) } else { signed(ProofSocket::from_env()?) };
                proven(layer.expect_signed_responses(servers, source.clone()), next, source)?
            }
        };
        Ok(Self { url: next.next.clone(), send })
    }

    pub(crate) async fn call(&self, body: Bytes) -> Result<(StatusCode, String)> {
        let request = Request::post(self.url.clone()).header("content-type", "text/plain").body(Full::new(body))?;
        (self.send)(request).await
    }
}

/// Over TLS to the proxy, where there is one.
fn proven(layer: ProofLayer, next: &Next, source: &Source) -> Result<Arc<Sender>> {
    Ok(match &next.proxy {
        Some(proxy) => sender(layer.layer(https(source.tls_client_config(Authorizer::id(proxy)?)?))),
        None => sender(layer.layer(http())),
    })
}

fn wpt(prover: impl Prover + 'static) -> ProofLayer {
    ProofLayer::wpt(prover, ProofAudience::Target)
}

fn signed(prover: impl Prover + 'static) -> ProofLayer {
    ProofLayer::http_signature(prover, ProofAudience::Target)
}

fn http<B: hyper::body::Body<Data: Send> + Send>() -> HttpClient<HttpConnector, B> {
    HttpClient::builder(TokioExecutor::new()).build_http()
}

fn https<B: hyper::body::Body<Data: Send> + Send>(config: rustls::ClientConfig) -> HttpClient<MtlsConnector, B> {
    HttpClient::builder(TokioExecutor::new()).build(MtlsConnector::new(config))
}

/// A client whose types are hidden.
fn sender<S, R>(client: S) -> Arc<Sender>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: hyper::body::Body<Data = Bytes> + Send,
    R::Error: Into<BoxError>,
{
    Arc::new(move |request| {
        let client = client.clone();
        Box::pin(async move {
            let response = client.oneshot(request).await.map_err(|error| described(&*error.into()))?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| described(&*error.into()))?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        })
    })
}

/// With all causes: a client of hyper names only the first.
fn described(error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    let causes = std::iter::successors(Some(error), |error| error.source());
    anyhow!(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

pub(crate) async fn run(next: Next, count: u64, every: Duration) -> Result<()> {
    let source = source().await?;
    let client = Client::new(&next, &source).await?;
    let mut failed = 0_u64;
    for number in 1..=count {
        let answer = client.call(Bytes::from(format!("call {number}"))).await;
        let is_success = matches!(&answer, Ok((status, _)) if status.is_success());
        failed += u64::from(!is_success);
        if count == 1 || !is_success {
            say(&match answer {
                Ok((status, body)) => json!({"event": "answer", "status": status.as_u16(), "body": body}),
                Err(error) => json!({"event": "answer", "error": format!("{error:#}")}),
            });
        } else if number % 100 == 0 {
            say(&json!({"event": "calls", "calls": number, "failed": failed}));
        }
        tokio::time::sleep(every).await;
    }
    say(&json!({"event": "done", "calls": count, "failed": failed}));
    Ok(())
}
