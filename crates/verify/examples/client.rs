//! A client that knows whom it calls: `client HTTPS-URL SERVER-ID`

#![allow(clippy::print_stdout, reason = "it is a command")]

use std::{env, error::Error};

use countersign_verify::{Authorizer, PeerError, PeerIdentity, Source};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, server] = arguments.as_slice() else { return Err("usage: client HTTPS-URL SERVER-ID".into()) };

    let source = Source::from_env()?.ready().await?;
    let config = source.mtls_client_config(Authorizer::id(server)?)?;
    let client = reqwest::Client::builder().use_preconfigured_tls(config).tls_info(true).https_only(true).build()?;

    let token = source.jwt_svid(&["service"]).await?;
    let response = client.get(url).bearer_auth(token.token()).send().await.map_err(|error| {
        let refused = PeerError::within(&error).map(ToString::to_string);
        refused.unwrap_or_else(|| error.to_string())
    })?;
    let peer = PeerIdentity::of_response(&response).ok_or("the server has no id")?;
    let status = response.status();
    println!("{peer} answered {status}: {}", response.text().await?.trim_end());
    if status.is_success() { Ok(()) } else { Err("refused".into()) }
}
