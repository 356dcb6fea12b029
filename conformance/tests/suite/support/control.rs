//! The client of a harness's control port (harness contract, section 4).

use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::{Failure, Verdict, error};
use super::tokens::AUDIENCE;

/// Of one request.
const LIMIT: Duration = Duration::from_secs(20);

/// What a client decided about a peer or a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// With the SPIFFE ID it read.
    Accepted(String),
    /// With its reason.
    Rejected(String),
}

/// A control port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Control {
    port: u16,
}

impl Control {
    pub(crate) fn new(port: u16) -> Self {
        Self { port }
    }

    pub(crate) async fn validate(self, token: &str) -> Verdict<Decision> {
        let (code, body) = self.post("/v1/jwt/validate", json!({"token": token, "audience": AUDIENCE})).await?;
        decision(code, &body)
    }

    /// Has the client call a server over mTLS.
    pub(crate) async fn dial(self, address: &str) -> Verdict<Decision> {
        let (code, body) = self.post("/v1/x509/dial", json!({"address": address})).await?;
        decision(code, &body)
    }

    /// As [`Self::dial`] of another harness; with whom that one saw, which the harnesses of this crate add.
    pub(crate) async fn dial_harness(self, port: u16) -> Verdict<(Decision, String)> {
        let (code, body) = self.post("/v1/x509/dial", json!({"address": format!("127.0.0.1:{port}")})).await?;
        Ok((decision(code, &body)?, message(&body)))
    }

    /// The tokens that the client fetched, or why it did not.
    pub(crate) async fn fetch(self, audience: &[&str], spiffe_id: &str) -> Verdict<Result<Vec<String>, String>> {
        let request = json!({"audience": audience, "spiffe_id": spiffe_id});
        match self.post("/v1/jwt/fetch", request).await? {
            (200, body) => {
                let svids = body["svids"].as_array().context("no svids in the answer")?;
                let token = |svid: &Value| svid["token"].as_str().map(str::to_owned).context("an svid without token");
                Ok(Ok(svids.iter().map(token).collect::<anyhow::Result<_>>()?))
            }
            (422 | 500, body) => Ok(Err(message(&body))),
            (code, body) => unexpected(code, &body),
        }
    }

    async fn post(self, path: &str, body: Value) -> anyhow::Result<(u16, Value)> {
        timeout(LIMIT, self.send(path, body))
            .await
            .with_context(|| format!("{path}: no answer"))?
            .context("control port")
    }

    async fn send(self, path: &str, body: Value) -> anyhow::Result<(u16, Value)> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::post(path)
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let response = sender.send_request(request).await?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        Ok((code, serde_json::from_slice(&body).with_context(|| format!("{code} without JSON"))?))
    }
}

/// Only `rejected` is a refusal: a harness that cannot do what it is asked must not pass for a strict client.
fn decision(code: u16, body: &Value) -> Verdict<Decision> {
    match code {
        200 => Ok(Decision::Accepted(body["spiffe_id"].as_str().unwrap_or_default().to_owned())),
        422 => Ok(Decision::Rejected(message(body))),
        _ => unexpected(code, body),
    }
}

fn unexpected<T>(code: u16, body: &Value) -> Verdict<T> {
    if code == 501 {
        return Err(Failure::Skip(message(body)));
    }
    error(format!("the control port answered {code}: {}", message(body)))
}

fn message(body: &Value) -> String {
    body["message"].as_str().unwrap_or("no message").to_owned()
}
