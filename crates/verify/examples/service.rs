//! A service that knows its callers: `service LISTEN TRUST-DOMAIN PATTERN...`
//!
//! It accepts every id of its own trust domain, and of TRUST-DOMAIN those whose path a pattern admits. `/` answers with the caller's
//! id, `/token` also asks for a JWT-SVID.

use std::{env, error::Error};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use countersign_verify::{Authorizer, MtlsListener, PeerIdentity, Source};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, foreign, patterns @ ..] = arguments.as_slice() else {
        return Err("see the first line of this file".into());
    };

    let source = Source::from_env()?.ready().await?;
    let own = source.x509_svid()?.id().trust_domain().to_string();
    let callers = Authorizer::trust_domain(&own)?.or_paths(foreign, patterns.iter().map(String::as_str))?;

    let app = Router::new()
        .route("/", get(async |ConnectInfo(peer): ConnectInfo<PeerIdentity>| format!("{peer}\n")))
        .route("/token", get(token))
        .with_state((source.clone(), callers.clone()));
    let listener = MtlsListener::bind(listen, source.mtls_server_config(callers)?).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    axum::serve(listener, app.into_make_service_with_connect_info::<PeerIdentity>()).await?;
    Ok(())
}

async fn token(
    State((source, callers)): State<(Source, Authorizer)>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let header = headers.get("authorization").and_then(|header| header.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix("Bearer ")).unwrap_or_default();
    let claims = source.validate_jwt_svid(token, "service", &callers).map_err(|error| {
        // The caller learns that it is refused; why is for the log.
        tracing::info!(%error, "a token was refused");
        StatusCode::UNAUTHORIZED
    })?;
    Ok(format!("{}\n", claims.id))
}
