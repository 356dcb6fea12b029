//! Requests a second at the bundle endpoint, beside a static file server of the same HTTP library behind the same listener: TLS 1.3
//! on the loopback address, keep-alive connections, one bundle document. With `--json` each figure is a line
//! `{"name","value","unit"}`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a bench prints what it measured, and ends when it cannot"
)]

/// Where `test_set` finds what it is made of.
mod publication {
    pub(crate) use countersign_endpoint::publication::Entry;
}
#[path = "../src/test_set.rs"]
#[allow(dead_code, reason = "the unit tests use more of it")]
mod test_set;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use countersign_endpoint::{
    metrics::Metrics,
    publication::{Publication, Published},
    servers::{LIMITS, Served},
};
use countersign_runtime::{
    connections::{ConnectionMetrics, ReadRate},
    http::{HttpLimits, serve_https},
    tls::{ServingCertificate, server_config},
};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::ServerName};
use test_set::TestDomain;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tower_http::services::ServeFile;

const CONNECTIONS: usize = 16;
const SPAN: Duration = Duration::from_secs(3);
/// Measured in turn, so that what the machine does meanwhile touches both.
const PAIRS: usize = 5;

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let _ = aws_lc_rs::default_provider().install_default();
    let now = Timestamp::now();
    let domain = TestDomain::new("a.example", now);
    let entries = domain.files("", None, now);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), domain.document()).unwrap();
    // A peer that asks again and again is slowed down on purpose; here the servers are measured.
    let limits = HttpLimits { read_rate: ReadRate { bytes_per_second: 1 << 30, burst: 1 << 30 }, ..LIMITS };

    let published = Arc::new(Published::default());
    let publication = Publication::build(&entries, &Default::default(), now).unwrap();
    let certificate = publication.certificate(None);
    published.publish(publication);
    let served = Served::new(published, &Metrics::new());
    let (endpoint, listener) = bind().await;
    tokio::spawn(async move {
        served.serve_spiffe(listener, limits, ConnectionMetrics::default(), CancellationToken::new()).await.unwrap();
    });

    let serving = Arc::new(ServingCertificate::default());
    serving.publish((*certificate).clone());
    let tls = server_config(serving, &[b"h2", b"http/1.1"]).unwrap();
    let router = Router::new().route_service("/", ServeFile::new(file.path()));
    let (files, listener) = bind().await;
    tokio::spawn(serve_https(listener, tls, router, limits, ConnectionMetrics::default(), CancellationToken::new()));

    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..PAIRS {
        for (address, rates) in [endpoint, files].into_iter().zip(&mut rates) {
            rates.push(measure(address).await);
        }
    }
    let [endpoint, files] = rates.map(median);
    print("bundle endpoint, requests a second", endpoint, "1/s");
    print("static file server, requests a second", files, "1/s");
    print("bundle endpoint to static file server", endpoint / files, "ratio");
}

async fn bind() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

/// Answers a second over all connections.
async fn measure(address: SocketAddr) -> f64 {
    let answers = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + SPAN;
    let connections: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(ask(address, answers.clone(), until))).collect();
    for connection in connections {
        connection.await.unwrap();
    }
    answers.load(Ordering::Relaxed) as f64 / SPAN.as_secs_f64()
}

async fn ask(address: SocketAddr, answers: Arc<AtomicU64>, until: Instant) {
    let mut config =
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyServer)).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    while Instant::now() < until {
        let request = Request::get("/").header("host", "a.example").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() > 500);
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn print(name: &str, value: f64, unit: &str) {
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", serde_json::json!({"name": name, "value": (value * 1000.0).round() / 1000.0, "unit": unit}));
    } else {
        println!("{name:<50} {value:>10.3} {unit}");
    }
}

/// What is measured is the server.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
