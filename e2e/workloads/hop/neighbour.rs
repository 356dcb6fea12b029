//! A neighbour on the way: it forwards connections as they are, or requests of which it sees everything, as a proxy that ends TLS does. It
//! keeps them, and repeats or alters them when it is asked to.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::post,
};
use clap::Args;
use http::{Method, Request, StatusCode, Uri, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{say, source, tls::TlsListener};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Forwards connections: `PORT=HOST:PORT`; may be repeated.
    #[arg(long, value_parser = forward)]
    tcp: Vec<(u16, String)>,
    /// Forwards requests: `PORT=HOST:PORT`; may be repeated.
    #[arg(long, value_parser = forward)]
    http: Vec<(u16, String)>,
    /// Forwards requests that come over TLS, which ends here: `PORT=HOST:PORT`; may be repeated.
    #[arg(long, value_parser = forward)]
    https: Vec<(u16, String)>,
    /// The port for commands, on the loopback address.
    #[arg(long)]
    control: u16,
}

fn forward(text: &str) -> Result<(u16, String)> {
    let (port, target) = text.split_once('=').context("PORT=HOST:PORT")?;
    Ok((port.parse()?, target.to_owned()))
}

/// What it has forwarded, and what it does to requests and responses.
#[derive(Default)]
struct Kept {
    /// What clients sent on a connection, with the port.
    connections: Vec<(u16, Vec<u8>)>,
    requests: Vec<(u16, Parts, Bytes)>,
    last_response: Option<(http::response::Parts, Bytes)>,
    alter: Alter,
}

/// What is altered on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Alter {
    #[default]
    Nothing,
    Method,
    Path,
    Query,
    Body,
    ResponseStatus,
    ResponseBody,
    /// The response to an earlier request is given instead.
    ResponseReused,
}

type Shared = Arc<Mutex<Kept>>;
type Http = Client<HttpConnector, Full<Bytes>>;

fn http_client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) async fn run(options: Options) -> Result<()> {
    let kept = Shared::default();
    for (port, target) in options.tcp.clone() {
        let listener = TcpListener::bind(("0.0.0.0", port)).await?;
        tokio::spawn(forward_connections(listener, port, target, Arc::clone(&kept)));
    }
    let forwarding = |port: u16, target: String| {
        let state = (Arc::clone(&kept), port, target, http_client());
        Router::new().fallback(forward_request).with_state(state)
    };
    for (port, target) in options.http.clone() {
        let (listener, app) = (TcpListener::bind(("0.0.0.0", port)).await?, forwarding(port, target));
        tokio::spawn(async { axum::serve(listener, app).await });
    }
    for (port, target) in options.https.clone() {
        let tls = source().await?.tls_server_config()?;
        let listener = TlsListener::new(TcpListener::bind(("0.0.0.0", port)).await?, tls);
        let app = forwarding(port, target);
        tokio::spawn(async { axum::serve(listener, app).await });
    }
    let all = options.tcp.into_iter().map(|forward| (forward, true));
    let requests = options.http.into_iter().chain(options.https);
    let all: Vec<_> = all.chain(requests.map(|forward| (forward, false))).collect();
    let control = Router::new()
        .route("/replay/{from}/{target}", post(replay))
        .route("/alter/{what}", post(alter))
        .with_state((Arc::clone(&kept), Arc::new(all)));
    let listener = TcpListener::bind(("127.0.0.1", options.control)).await?;
    say(&json!({"event": "listening"}));
    axum::serve(listener, control).await?;
    Ok(())
}

/// Prints what the neighbour answers.
pub(crate) async fn ask(port: u16, path: &str) -> Result<()> {
    let url: Uri = format!("http://127.0.0.1:{port}{path}").parse()?;
    let request = Request::post(url).body(Full::<Bytes>::default())?;
    let response = http_client().request(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    say(&serde_json::from_slice(&body)?);
    Ok(())
}

async fn forward_connections(listener: TcpListener, port: u16, target: String, kept: Shared) {
    while let Ok((mut caller, _)) = listener.accept().await {
        let (target, kept) = (target.clone(), Arc::clone(&kept));
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(&target).await else { return };
            let place = {
                let mut kept = kept.lock();
                kept.connections.push((port, Vec::new()));
                kept.connections.len() - 1
            };
            let ((mut from_caller, mut to_caller), (mut from_server, mut to_server)) = (caller.split(), server.split());
            let upwards = async {
                let mut buffer = [0_u8; 16 * 1024];
                while let Ok(length @ 1..) = from_caller.read(&mut buffer).await {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if let Some((_, sent)) = kept.lock().connections.get_mut(place) {
                        sent.extend_from_slice(bytes);
                    }
                    if to_server.write_all(bytes).await.is_err() {
                        return;
                    }
                }
                let _ = to_server.shutdown().await;
            };
            let _ = tokio::join!(upwards, tokio::io::copy(&mut from_server, &mut to_caller));
        });
    }
}

async fn forward_request(
    State((kept, port, target, http)): State<(Shared, u16, String, Http)>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let alter = kept.lock().alter;
    let seen = (port, parts.clone(), body.clone());
    let (parts, body) = altered(parts, body, alter);
    let Ok((mut head, mut body)) = send(&http, &target, parts, body).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let mut kept = kept.lock();
    // What did not arrive is not repeated when it is sent later.
    kept.requests.push(seen);
    match alter {
        Alter::ResponseStatus => head.status = StatusCode::CREATED,
        Alter::ResponseBody => body = Bytes::from(body.iter().rev().copied().collect::<Vec<_>>()),
        Alter::ResponseReused => {
            if let Some((earlier, content)) = &kept.last_response {
                (head, body) = (earlier.clone(), content.clone());
            }
        }
        _ if head.headers.contains_key("signature-input") => kept.last_response = Some((head.clone(), body.clone())),
        _ => {}
    }
    Response::from_parts(head, Body::from(body))
}

fn altered(mut parts: Parts, mut body: Bytes, alter: Alter) -> (Parts, Bytes) {
    let path = parts.uri.path().to_owned();
    match alter {
        Alter::Method => parts.method = Method::PUT,
        Alter::Path => parts.uri = format!("{path}x").parse().unwrap_or_default(),
        Alter::Query => parts.uri = format!("{path}?admin=1").parse().unwrap_or_default(),
        Alter::Body => body = Bytes::from(body.iter().rev().copied().collect::<Vec<_>>()),
        _ => {}
    }
    (parts, body)
}

async fn send(http: &Http, target: &str, mut parts: Parts, body: Bytes) -> Result<(http::response::Parts, Bytes)> {
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    parts.uri = format!("http://{target}{path}").parse()?;
    parts.version = http::Version::HTTP_11;
    let response = http.request(Request::from_parts(parts, Full::new(body))).await?;
    let (mut head, body) = response.into_parts();
    head.headers.remove(http::header::TRANSFER_ENCODING);
    Ok((head, body.collect().await?.to_bytes()))
}

type Control = (Shared, Arc<Vec<((u16, String), bool)>>);

/// Repeats all that was forwarded from this port, at the place that it was for or at another: the status of each request, and what came
/// back on each connection.
async fn replay(State((kept, all)): State<Control>, Path(asked): Path<(u16, String)>) -> Json<Value> {
    let (from, target) = asked;
    let found = all.iter().find(|((port, _), _)| *port == from);
    let Some(((_, usual), is_tcp)) = found else { return Json(json!({"error": "no such port"})) };
    let target = if target == "same" { usual.clone() } else { target };
    let mut results = Vec::new();
    if *is_tcp {
        let connections = kept.lock().connections.clone();
        for (_, sent) in connections.iter().filter(|(port, _)| *port == from) {
            results.push(json!(repeat_connection(&target, sent).await.unwrap_or_else(|error| error.to_string())));
        }
    } else {
        let requests: Vec<_> = kept.lock().requests.iter().filter(|(port, ..)| *port == from).cloned().collect();
        let http = http_client();
        for (_, parts, body) in requests {
            let answer = send(&http, &target, parts, body).await;
            results.push(answer.map_or_else(|error| json!(error.to_string()), |(head, _)| json!(head.status.as_u16())));
        }
    }
    Json(json!({"event": "replayed", "results": results}))
}

/// Sends the bytes of an earlier connection: whether the server ends this one. Whether a request reached it, it says itself.
async fn repeat_connection(target: &str, sent: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(sent).await?;
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut Vec::new())).await;
    let _ = read.map_err(|_| anyhow!("it stays open"))?;
    Ok("closed".to_owned())
}

async fn alter(State((kept, _)): State<Control>, Path(what): Path<Alter>) -> Json<Value> {
    kept.lock().alter = what;
    Json(json!({"event": "altering"}))
}
