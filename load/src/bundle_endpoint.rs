//! A bundle endpoint of another cluster, on the loopback address: the profile `https_web`, and the time at which a document was
//! fetched for the first time.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use axum::{Router, body::Bytes, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use countersign_runtime::{
    connections::{ConnectionLimits, ConnectionMetrics, ReadRate},
    http::{HttpLimits, serve_https},
    tls::{ServingCertificate, server_config},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// More than one operator, which polls every half minute, makes use of.
const LIMITS: HttpLimits = HttpLimits {
    connections: ConnectionLimits {
        handshakes: 1,
        handshake_time: Duration::from_secs(5),
        waiting_per_address: 16,
        waiting: 16,
        per_address: 16,
        total: 16,
    },
    idle: Duration::from_secs(30),
    read_rate: ReadRate { bytes_per_second: 16 * 1024, burst: 64 * 1024 },
    streams: 16,
    shutdown: Duration::from_secs(1),
};

/// A running endpoint, stopped on drop.
#[derive(Debug)]
pub(crate) struct BundleEndpoint {
    pub(crate) url: String,
    /// The authority of its web certificate, PEM.
    pub(crate) ca_bundle: String,
    served: watch::Sender<Served>,
    _stop: DropGuard,
}

/// The document that is served.
#[derive(Debug)]
struct Served {
    document: Bytes,
    /// When it was handed to a connection for the first time.
    sent: Option<Instant>,
}

impl BundleEndpoint {
    pub(crate) async fn start(document: Vec<u8>) -> Result<Self> {
        let (certificate, ca_bundle) = web_certificate().context("a web certificate")?;
        let serving = Arc::new(ServingCertificate::default());
        serving.publish(certificate);
        let tls = server_config(serving, &[b"http/1.1"])?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("https://{}/", listener.local_addr()?);
        let (served, stop) = (watch::Sender::new(Served::new(document)), CancellationToken::new());
        let router = Router::new().route("/", get(serve)).with_state(served.clone());
        tokio::spawn(serve_https(listener, tls, router, LIMITS, ConnectionMetrics::default(), stop.clone()));
        Ok(Self { url, ca_bundle, served, _stop: stop.drop_guard() })
    }

    /// Serves another document.
    pub(crate) fn publish(&self, document: Vec<u8>) {
        self.served.send_replace(Served::new(document));
    }

    /// Waits until the document is fetched; returns when it was handed to the connection.
    pub(crate) async fn sent(&self) -> Result<Instant> {
        let mut served = self.served.subscribe();
        let served = served.wait_for(|served| served.sent.is_some()).await?;
        served.sent.context("a time was waited for")
    }
}

impl Served {
    fn new(document: Vec<u8>) -> Self {
        Self { document: document.into(), sent: None }
    }
}

async fn serve(State(served): State<watch::Sender<Served>>) -> impl IntoResponse {
    // In one step, so that a time is never that of another document.
    let mut document = Bytes::new();
    served.send_if_modified(|served| {
        document = served.document.clone();
        let is_first = served.sent.is_none();
        served.sent.get_or_insert_with(Instant::now);
        is_first
    });
    ([(CONTENT_TYPE, "application/json")], document)
}

/// For the loopback address, with its authority as PEM.
fn web_certificate() -> Result<(CertifiedKey, String)> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new([Ipv4Addr::LOCALHOST.to_string()])?.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((CertifiedKey::new(vec![leaf.der().clone()], any_supported_type(&key)?), authority.pem()))
}
