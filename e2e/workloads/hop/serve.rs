//! The service.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{Extension, Router, body::Bytes, response::IntoResponse};
use clap::Args;
use countersign_verify::{
    Authorizer, MtlsListener, PeerIdentity,
    layer::AuthenticationLayer,
    proof::{Authenticator, Caller, Method, RedisReplayCache},
    proof_socket::ProofSocket,
    wimse::Audience,
};
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    call::{Client, Next},
    method, say, source,
    tls::TlsListener,
};

/// What the service accepts.
#[derive(Debug, Args)]
pub(crate) struct Accept {
    /// How callers prove who they are; may be repeated. With `mtls`, the service listens for mutual TLS, with `jwt-svid` alone for TLS.
    #[arg(long, required = true, value_parser = method)]
    accept: Vec<Method>,
    /// An origin by whose targets proofs address it; may be repeated.
    #[arg(long)]
    origin: Vec<String>,
    /// The audience of JWT-SVIDs.
    #[arg(long, default_value = "")]
    jwt_audience: String,
    /// A SPIFFE ID that may call; may be repeated.
    #[arg(long, required = true)]
    caller: Vec<String>,
    /// Where replicas share which proofs were used, such as `redis://HOST:PORT`.
    #[arg(long)]
    replay_cache: Option<String>,
}

pub(crate) async fn run(listen: SocketAddr, accept: Accept, next: Option<Next>) -> Result<()> {
    let source = source().await?;
    let callers = Authorizer::parse(accept.caller.iter().map(String::as_str))?;
    let mut builder = Authenticator::builder(source.clone()).callers(callers.clone());
    for method in &accept.accept {
        builder = match method {
            Method::Mtls => builder.mtls(),
            Method::JwtSvid => builder.jwt_svid(&accept.jwt_audience),
            Method::Wpt => builder.wpt(),
            _ => builder.http_signature(),
        };
    }
    for origin in &accept.origin {
        builder = builder.audience(Audience::targets_of(origin)?);
    }
    if let Some(url) = &accept.replay_cache {
        let cache = RedisReplayCache::connect(url).await.context("the shared replay cache")?;
        builder = builder.replay_cache(Arc::new(cache));
    }
    let layer = AuthenticationLayer::new(builder.build()?).sign_responses(ProofSocket::from_env()?);
    let next = match next {
        Some(next) => Some(Client::new(&next, &source).await?),
        None => None,
    };
    let app = Router::new().fallback(answer).layer(Extension(next)).layer(layer);
    let tcp = TcpListener::bind(listen).await?;
    say(&json!({"event": "listening", "address": listen}));
    if accept.accept.contains(&Method::Mtls) {
        let listener = MtlsListener::new(tcp, source.mtls_server_config(callers)?);
        axum::serve(listener, app.into_make_service_with_connect_info::<PeerIdentity>()).await?;
    } else if accept.accept == [Method::JwtSvid] {
        axum::serve(TlsListener::new(tcp, source.tls_server_config()?), app).await?;
    } else {
        axum::serve(tcp, app).await?;
    }
    Ok(())
}

async fn answer(
    Extension(caller): Extension<Caller>,
    Extension(next): Extension<Option<Client>>,
    body: Bytes,
) -> impl IntoResponse {
    let seen = format!("{} by {}\n", caller.id(), caller.method());
    say(&json!({"event": "request", "caller": caller.id().to_string(), "method": caller.method().as_str()}));
    let Some(next) = next else { return (StatusCode::OK, seen) };
    match next.call(body).await {
        Ok((status, answer)) if status.is_success() => (StatusCode::OK, seen + &answer),
        Ok((status, _)) => (StatusCode::BAD_GATEWAY, format!("{seen}the next service answers {status}\n")),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{seen}the next service: {error:#}\n")),
    }
}
