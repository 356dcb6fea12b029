//! The harness of the crates `spiffe` and `spiffe-rustls` for the conformance suite.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use countersign_conformance::contract::{self, Client, JwtSvid, Refusal};
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use spiffe::{JwtSource, SpiffeId, WorkloadApiClient, X509Source};
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;
use tokio_rustls::{TlsAcceptor, TlsConnector};

struct Spiffe {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    /// Made with the first request that needs it: tests of X.509 alone may serve no JWT bundles.
    jwt: OnceCell<JwtSource>,
}

#[tokio::main]
async fn main() -> Result<()> {
    contract::run(Spiffe::start()).await
}

impl Spiffe {
    /// The address comes from `SPIFFE_ENDPOINT_SOCKET`. This returns with the first X509-SVID.
    async fn start() -> Result<Self> {
        let source = X509Source::new().await.context("X.509 source")?;
        let server = mtls_server(source.clone()).authorize(authorizer::any()).build().context("TLS server")?;
        let client = mtls_client(source).authorize(authorizer::any()).build().context("TLS client")?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            jwt: OnceCell::new(),
        })
    }
}

impl Client for Spiffe {
    fn name(&self) -> (&'static str, &'static str) {
        ("spiffe and spiffe-rustls", "0.19 and 0.11")
    }

    async fn serve(&self, listener: TcpListener) -> Result<()> {
        loop {
            let (stream, _) = listener.accept().await.context("accept")?;
            let acceptor = self.acceptor.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(&acceptor, stream).await {
                    contract::log(&format!("X.509 port: {error:#}"));
                }
            });
        }
    }

    async fn dial(&self, address: &str) -> Result<(String, String), Refusal> {
        let stream = TcpStream::connect(address).await.map_err(error)?;
        // The peer is known by its SPIFFE ID; the name is of no importance.
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let connection = self.connector.connect(name, stream).await.map_err(not_connected)?;
        let id = peer(connection.get_ref().1.peer_certificates()).map_err(rejected)?;
        Ok((id, contract::said(connection).await))
    }

    async fn validate(&self, token: &str, audience: &str) -> Result<(String, Value), Refusal> {
        let source = self.jwt.get_or_try_init(JwtSource::new).await.map_err(error)?;
        let svid = spiffe::JwtSvid::parse_and_validate(token, source, &[audience]).map_err(rejected)?;
        let claims = svid.claims();
        let claims = json!({"sub": claims.sub(), "aud": claims.aud(), "exp": claims.exp()});
        Ok((svid.spiffe_id().to_string(), claims))
    }

    async fn fetch(&self, audience: &[String], spiffe_id: Option<&str>) -> Result<Vec<JwtSvid>, Refusal> {
        let id = spiffe_id.map(SpiffeId::new).transpose().map_err(error)?;
        let client = WorkloadApiClient::connect_env().await.map_err(error)?;
        let svids = client.fetch_all_jwt_svids(audience, id.as_ref()).await.map_err(error)?;
        let svid = |svid: &spiffe::JwtSvid| JwtSvid {
            spiffe_id: svid.spiffe_id().to_string(),
            token: svid.token().to_owned(),
        };
        Ok(svids.iter().map(svid).collect())
    }
}

async fn answer(acceptor: &TlsAcceptor, stream: TcpStream) -> Result<()> {
    let connection = acceptor.accept(stream).await?;
    let id = peer(connection.get_ref().1.peer_certificates())?;
    Ok(contract::greet(connection, &id).await?)
}

fn peer(chain: Option<&[CertificateDer<'_>]>) -> Result<String> {
    let leaf = chain.and_then(<[_]>::first).context("no certificate")?;
    Ok(spiffe::cert::spiffe_id_from_der(leaf)?.to_string())
}

/// Only what the verifier said of the certificate is a decision about it.
fn not_connected(failure: std::io::Error) -> Refusal {
    let tls = failure.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(_)) | None => error(failure),
        Some(_) => rejected(failure),
    }
}

fn rejected(error: impl std::fmt::Display) -> Refusal {
    Refusal::Rejected(error.to_string())
}

fn error(error: impl std::fmt::Display) -> Refusal {
    Refusal::Error(error.to_string())
}
