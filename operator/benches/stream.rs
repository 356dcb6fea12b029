//! An issue over an open stream: the real issuer behind its real listener (TLS 1.3, HTTP/2) on the loopback address, asked by
//! so many callers. What it costs the issuer's threads is told apart from what the callers cost. The whole process on a
//! full cluster is measured by `countersign-load`.
//!
//! With `--json` each figure is a line `{"name","value","unit"}`. With `--federated`, what an issue costs with remote trust domains
//! is measured beside what it costs without, in pairs.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench prints what it measured, and ends when it cannot"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_core::{
    bundle::Bundle,
    csr::Csr,
    id::TrustDomain,
    jwt::JwtVerificationKey,
    key::{KeyType, PrivateKey, Signer as _},
    x509::X509Authority,
};
use countersign_issuer::{drain, published::PublishedBundle, serving};
use countersign_operator::federation::{ForeignBundle, ForeignBundles};
use countersign_proto::issuer::v1::{
    Hello, SessionRequest, SessionResponse, X509Request, issuer_client::IssuerClient, session_request::Kind as Request,
    session_response::Kind as Response,
};
use countersign_runtime::{
    connections::{self, ConnectionLimits},
    tls::{ServingCertificate, server_config},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
use serde_json::{Value, json};
use support::{EPOCH, World, claims, pod};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Endpoint, Uri},
};

/// One stream may ask so often and no more; callers take turns over many.
const STREAMS: usize = 256;
const CALLERS: [usize; 3] = [1, 8, 32];
const SPAN: Duration = Duration::from_secs(3);
const NAME: &str = "countersign-issuer.countersign-system.svc";
/// Of the issuer's threads; their first 15 bytes are what the kernel keeps.
const THREADS: &str = "issuer";

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let issuing = runtime(THREADS);
    let (world, address, roots) = issuing.block_on(serve());
    let signer = Rs256::new();
    world.cluster_keys.keys.lock().unwrap().push(signer.jwk());
    let calling = runtime("caller");
    let mut streams = calling.block_on(open(address, roots, &signer));
    (_, _, streams) = calling.block_on(measure(streams, 8, Duration::from_secs(1)));
    for callers in CALLERS {
        let before = cpu();
        let begun = Instant::now();
        let mut spans;
        (spans, _, streams) = calling.block_on(measure(streams, callers, SPAN));
        let (took, used) = (begun.elapsed(), cpu() - before);
        spans.sort_unstable();
        let issues = spans.len() as f64;
        let at = |share: f64| {
            spans
                .get((spans.len().saturating_sub(1) as f64 * share).round() as usize)
                .map_or(f64::NAN, Duration::as_secs_f64)
                * 1e3
        };
        let plural = if callers == 1 { "caller" } else { "callers" };
        print(&format!("issue over a stream, {callers} {plural}, rate"), issues / took.as_secs_f64(), "1/s");
        print(&format!("issue over a stream, {callers} {plural}, p99"), at(0.99), "ms");
        print(&format!("issue over a stream, {callers} {plural}, issuer CPU"), used.as_secs_f64() * 1e6 / issues, "us");
    }
    if std::env::args().any(|argument| argument == "--federated") {
        federated(&world, &issuing, &calling, streams);
    }
}

/// Remote trust domains, and pairs of measurements.
const REMOTES: usize = 500;
const PAIRS: usize = 5;

/// Prints what an issue costs with remote trust domains, and the ratio to what it costs without.
fn federated(world: &World, issuing: &Runtime, calling: &Runtime, mut streams: Vec<OpenStream>) {
    let (foreign, received) = tokio::sync::watch::channel(Arc::new(ForeignBundles::new()));
    let authorities = world.authorities.clone();
    issuing.spawn(async move { authorities.follow_foreign(received).await });
    let names: Vec<String> = (0..REMOTES).map(|number| format!("peer-{number}.example")).collect();
    let bundles: ForeignBundles = names.iter().map(|name| foreign_bundle(name)).collect();
    let bundles = Arc::new(bundles);
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..PAIRS {
        for (is_federated, costs) in [false, true].into_iter().zip(&mut costs) {
            for name in &names {
                world.index.update(|index| match is_federated {
                    true => index.apply_domain(countersign_policy::trust_domain(&remote(name), "")),
                    false => index.remove_domain(name),
                });
            }
            foreign.send_replace(if is_federated { bundles.clone() } else { Arc::default() });
            let before = cpu();
            let (spans, _, returned) = calling.block_on(measure(streams, 8, SPAN));
            costs.push((cpu() - before).as_secs_f64() * 1e6 / spans.len() as f64);
            streams = returned;
        }
    }
    let median = |costs: &mut Vec<f64>| {
        costs.sort_by(f64::total_cmp);
        costs.get(costs.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let [mut without, mut with] = costs;
    let (without, with) = (median(&mut without), median(&mut with));
    print("issue over a stream, 8 callers, no remote trust domain, issuer CPU", without, "us");
    print(&format!("issue over a stream, 8 callers, {REMOTES} remote trust domains, issuer CPU"), with, "us");
    print("the ratio of these", with / without, "ratio");
}

fn remote(name: &str) -> countersign_crds::TrustDomain {
    let object = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain", "metadata": { "name": name, "uid": name },
        "spec": { "remote": {
            "namespaces": { "matchNames": ["shop"] }, "endpoint": { "url": format!("https://{name}/"), "profile": "https_web" },
        } },
    });
    serde_json::from_value(object).unwrap()
}

fn foreign_bundle(name: &str) -> (TrustDomain, Arc<ForeignBundle>) {
    let trust_domain: TrustDomain = name.parse().unwrap();
    let authority =
        X509Authority::generate(&trust_domain, KeyType::EcP256, Duration::from_secs(86_400), support::epoch());
    let bundle = Bundle {
        trust_domain: trust_domain.clone(),
        x509_authorities: vec![authority.unwrap().certificate().clone()],
        jwt_authorities: Vec::new(),
        wit_authorities: Vec::new(),
        sequence: 1,
        refresh_hint: Duration::from_secs(300),
    };
    let published = Arc::new(PublishedBundle { document: bundle.to_json().into(), sequence: 1 });
    (trust_domain, Arc::new(ForeignBundle { bundle, published }))
}

fn print(name: &str, value: f64, unit: &str) {
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", json!({"name": name, "value": (value * 1000.0).round() / 1000.0, "unit": unit}));
    } else {
        println!("{name:<50} {value:>10.3} {unit}");
    }
}

fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().unwrap()
}

/// The issuer, its address and the roots of its certificate.
async fn serve() -> (World, SocketAddr, Vec<Vec<u8>>) {
    let world = World::new().await;
    world.index.update(|index| {
        for number in 0..STREAMS {
            index.apply_pod(pod(&format!("orders-{number}"), &format!("uid-{number}")));
        }
    });
    let context = world.context.clone();
    let certificate = Arc::new(ServingCertificate::default());
    let names = vec![NAME.to_owned()];
    let (published, clock) = (world.authorities.subscribe(), world.clock.clone());
    let check = world.checks.control_plane_root.clone();
    tokio::spawn(serving::keep_fresh(certificate.clone(), names, published, clock, check));
    let tls = server_config(certificate, &[b"h2"]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ready, incoming) = mpsc::channel(64);
    let (metrics, closed) = (world.metrics.connections.clone(), drain::closed(context.shutdown.clone()));
    tokio::spawn(connections::accept(listener, tls, ConnectionLimits::default(), metrics, closed, ready));
    let roots = context.published.borrow().control_plane_roots.clone();
    tokio::spawn(async move {
        let _ended = countersign_issuer::serve(context, connections::incoming(incoming)).await;
    });
    (world, address, roots)
}

/// The key of a cluster as most are: RSA.
struct Rs256(PrivateKey);

impl Rs256 {
    fn new() -> Self {
        Self(PrivateKey::generate(KeyType::Rsa2048).unwrap())
    }

    fn jwk(&self) -> Value {
        let mut jwk = JwtVerificationKey::new("rs256", self.0.public_key()).unwrap().jwk();
        jwk.insert("use".to_owned(), Value::from("sig"));
        Value::from(jwk)
    }

    fn token(&self, number: usize) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = claims(&format!("orders-{number}"), &format!("uid-{number}"));
        let input = format!("{}.{}", part(&json!({"alg": "RS256", "kid": "rs256"})), part(&claims));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(input.as_bytes()).unwrap()))
    }
}

struct OpenStream {
    requests: mpsc::Sender<SessionRequest>,
    responses: Streaming<SessionResponse>,
    token: String,
    csr: Vec<u8>,
}

/// The world's time stands near its epoch.
#[derive(Debug)]
struct Epoch;

impl TimeProvider for Epoch {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(EPOCH.unsigned_abs() + 60)))
    }
}

async fn open(address: SocketAddr, roots: Vec<Vec<u8>>, signer: &Rs256) -> Vec<OpenStream> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.into_iter().map(CertificateDer::from));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Epoch))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        streams.push(open_one(address, tls.clone(), signer.token(number)).await);
    }
    streams
}

async fn open_one(address: SocketAddr, tls: TlsConnector, token: String) -> OpenStream {
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let stream = tls.connect(ServerName::try_from(NAME).unwrap(), tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://issuer").connect_with_connector(connector).await.unwrap();
    let (requests, outgoing) = mpsc::channel(4);
    let hello = Hello { version: "bench".to_owned(), token: token.clone(), ..Hello::default() };
    requests.send(SessionRequest { kind: Some(Request::Hello(hello)) }).await.unwrap();
    let responses = IssuerClient::new(channel).session(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let csr = Csr::create(&PrivateKey::generate(KeyType::EcP256).unwrap()).unwrap();
    let mut stream = OpenStream { requests, responses, token, csr };
    assert!(matches!(stream.next().await, Response::State(_)), "a state comes first");
    stream
}

impl OpenStream {
    async fn next(&mut self) -> Response {
        self.responses.message().await.unwrap().unwrap().kind.unwrap()
    }

    /// Whether it was issued, or refused by a limit.
    async fn issue(&mut self) -> bool {
        let request = X509Request { id: 1, csr: self.csr.clone(), token: self.token.clone(), ..X509Request::default() };
        self.requests.send(SessionRequest { kind: Some(Request::X509(request)) }).await.unwrap();
        match self.next().await {
            Response::X509(answer) => answer.refusal.is_none(),
            other => panic!("not a certificate: {other:?}"),
        }
    }
}

/// What each issue took, how many were refused by a limit, and the streams.
async fn measure(streams: Vec<OpenStream>, callers: usize, span: Duration) -> (Vec<Duration>, usize, Vec<OpenStream>) {
    let mut shares: Vec<Vec<OpenStream>> = (0..callers).map(|_| Vec::new()).collect();
    for (number, stream) in streams.into_iter().enumerate() {
        shares.get_mut(number % callers).unwrap().push(stream);
    }
    let until = Instant::now() + span;
    let mut running = JoinSet::new();
    for mut share in shares {
        running.spawn(async move {
            let (mut spans, mut refused) = (Vec::new(), 0);
            while Instant::now() < until {
                for stream in &mut share {
                    let begun = Instant::now();
                    if stream.issue().await {
                        spans.push(begun.elapsed());
                    } else {
                        refused += 1;
                    }
                    if Instant::now() >= until {
                        break;
                    }
                }
            }
            (spans, refused, share)
        });
    }
    let (mut spans, mut refused, mut streams) = (Vec::new(), 0, Vec::new());
    for (taken, turned_away, share) in running.join_all().await {
        spans.extend(taken);
        refused += turned_away;
        streams.extend(share);
    }
    (spans, refused, streams)
}

/// The time that the issuer's threads ran (field 1 of `schedstat`, nanoseconds).
fn cpu() -> Duration {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").starts_with(THREADS) {
            nanoseconds += read("schedstat").split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap();
        }
    }
    Duration::from_nanos(nanoseconds)
}
