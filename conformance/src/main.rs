//! The harness of `countersign-verify` for the conformance suite.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use countersign_conformance::contract::{self, Client, JwtSvid, Refusal};
use countersign_verify::{Authorizer, MtlsListener, PeerError, PeerIdentity, Source, SpiffeId};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

struct Verify {
    source: Source,
    connector: TlsConnector,
}

#[tokio::main]
async fn main() -> Result<()> {
    contract::run(Verify::start()).await
}

impl Verify {
    /// The address comes from `SPIFFE_ENDPOINT_SOCKET`. This returns with the first X509-SVID.
    async fn start() -> Result<Self> {
        let source = Source::from_env()?.ready().await?;
        let connector = TlsConnector::from(Arc::new(source.mtls_client_config(Authorizer::anybody())?));
        Ok(Self { source, connector })
    }
}

impl Client for Verify {
    fn name(&self) -> (&'static str, &'static str) {
        ("countersign-verify", env!("CARGO_PKG_VERSION"))
    }

    async fn serve(&self, listener: TcpListener) -> Result<()> {
        let config = self.source.mtls_server_config(Authorizer::anybody())?;
        let mut listener = MtlsListener::new(listener, config);
        loop {
            let (connection, _) = listener.accept().await;
            tokio::spawn(async move {
                let id = connection.peer().id().to_string();
                if let Err(error) = contract::greet(connection, &id).await {
                    contract::log(&format!("X.509 port: {error}"));
                }
            });
        }
    }

    async fn dial(&self, address: &str) -> Result<(String, String), Refusal> {
        let stream = TcpStream::connect(address).await.map_err(error)?;
        // The peer is known by its SPIFFE ID; the name is of no importance.
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let connection = self.connector.connect(name, stream).await.map_err(|failure| {
            // What the network or the server did is not a decision.
            PeerError::within(&failure).map_or_else(|| error(&failure), rejected)
        })?;
        let peer = PeerIdentity::of(connection.get_ref().1).context("no certificate").map_err(error)?;
        Ok((peer.id().to_string(), contract::said(connection).await))
    }

    async fn validate(&self, token: &str, audience: &str) -> Result<(String, Value), Refusal> {
        let claims = self.source.validate_jwt_svid(token, audience, &Authorizer::anybody()).map_err(rejected)?;
        Ok((claims.id.to_string(), Value::Object(claims.raw)))
    }

    async fn fetch(&self, audience: &[String], spiffe_id: Option<&str>) -> Result<Vec<JwtSvid>, Refusal> {
        let id: Option<SpiffeId> = spiffe_id.map(str::parse).transpose().map_err(error)?;
        let audience: Vec<&str> = audience.iter().map(String::as_str).collect();
        let svids = self.source.fetch_jwt_svids(&audience, id.as_ref()).await.map_err(error)?;
        let svid =
            svids.iter().map(|svid| JwtSvid { spiffe_id: svid.id().to_string(), token: svid.token().to_owned() });
        Ok(svid.collect())
    }
}

fn rejected(error: impl std::fmt::Display) -> Refusal {
    Refusal::Rejected(error.to_string())
}

fn error(error: impl std::fmt::Display) -> Refusal {
    Refusal::Error(error.to_string())
}
