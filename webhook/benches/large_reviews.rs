//! Memory of the webhook while 64 clients send large reviews continuously, and the latency of ordinary reviews meanwhile
//! and at rest. The real admission server, in its own process with the program's allocator, is called over TLS on the
//! loopback address. `--json` prints one object a line: name, value, unit.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench prints what it measured, and ends when it cannot"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use countersign_runtime::tls::ServingCertificate;
use countersign_webhook::{
    admission::LONGEST_REVIEW,
    control_plane::{Current, Settings},
    https,
    inject::{AgentOptions, AgentResources, PullPolicy},
    large_reviews::LargeReviews,
    metrics::Metrics,
    server::App,
};
use rustls::{
    ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::ServerName, sign::CertifiedKey, version::TLS13,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

/// The allocator of the webhook's program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Concurrent large reviews.
const CALLERS: usize = 64;
/// Ordinary reviews at rest, and again among large ones.
const ORDINARY: usize = 500;
/// Large reviews that must be answered before the measurement ends.
const LARGE: u64 = 640;
/// Set in the serving process.
const SERVE: &str = "COUNTERSIGN_BENCH_SERVE";
const NAME: &str = "webhook.test";

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if std::env::var_os(SERVE).is_some() {
        runtime.block_on(serve());
    } else {
        runtime.block_on(measure());
    }
}

/// Prints the address and the certificate, and serves until it is killed.
async fn serve() {
    let _ = nix::sys::prctl::set_thp_disable(true);
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let certificate = Arc::new(ServingCertificate::default());
    certificate.publish(CertifiedKey::new(vec![made.cert.der().clone()], signing));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", json!({ "address": listener.local_addr().unwrap(), "certificate": made.cert.der().to_vec() }));
    let settings = Current::default();
    settings.store(Some(Arc::new(Settings {
        roots: "A".repeat(1600),
        issuer: "10.96.0.7:8443".into(),
        issuer_name: "countersign-issuer.countersign-system.svc".into(),
        audience: "countersign.dev/00000000-0000-0000-0000-000000000001".into(),
        cluster_name: String::new(),
    })));
    let options = AgentOptions {
        image: "countersign.local/agent:dev".into(),
        pull_policy: PullPolicy::IfNotPresent,
        resources: AgentResources::default(),
        meshes: vec![],
        log: None,
    };
    let app = Arc::new(App {
        consequences: countersign_webhook::consequences::Consequences::default(),
        options,
        settings,
        metrics: Metrics::new(),
        large_reviews: LargeReviews::new(),
        serves_until: watch::channel(None).1,
        draining: AtomicBool::new(false),
    });
    https::serve(listener, certificate, app, https::LIMITS, CancellationToken::new()).await.unwrap();
}

async fn measure() {
    let server = Server::start();
    let ordinary = request("shop", json!({}));
    let at_rest = latencies(&server, &ordinary).await;
    print("webhook memory without large reviews", server.peak(), "MiB");

    let (ended, answered, admitted) =
        (Arc::new(AtomicBool::new(false)), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut callers = JoinSet::new();
    let kinds: Vec<Vec<u8>> = large().into_iter().map(|spec| request("flood-00", spec)).collect();
    for (index, request) in (0..CALLERS).zip(kinds.iter().cycle()) {
        let (caller, ended) = (server.caller.clone(), ended.clone());
        let (answered, admitted) = (answered.clone(), admitted.clone());
        // Of the same length, so that Content-Length stays correct.
        let request = String::from_utf8_lossy(request).replace("flood-00", &format!("flood-{index:02}")).into_bytes();
        callers.spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let answer = caller.call(&mut caller.connect().await, &request).await;
                answered.fetch_add(1, Ordering::Relaxed);
                let allowed = answer.is_some_and(|answer| answer["response"]["allowed"] == true);
                admitted.fetch_add(u64::from(allowed), Ordering::Relaxed);
            }
        });
    }
    // All callers are active before the first ordinary review is timed.
    until(|| answered.load(Ordering::Relaxed) >= CALLERS as u64).await;
    let among = latencies(&server, &ordinary).await;
    until(|| answered.load(Ordering::Relaxed) >= LARGE).await;
    ended.store(true, Ordering::Relaxed);
    while callers.join_next().await.is_some_and(|ended| ended.is_ok()) {}
    print(&format!("webhook memory, {CALLERS} large reviews at once"), server.peak(), "MiB");
    for (name, part) in [("p50", 50), ("p99", 99)] {
        let of = |sorted: &[Duration]| sorted.get(sorted.len() * part / 100).unwrap().as_secs_f64() * 1000.0;
        print(&format!("ordinary review over TLS, at rest, {name}"), of(&at_rest), "ms");
        print(&format!("ordinary review among {CALLERS} large ones, {name}"), of(&among), "ms");
    }
    let admitted = admitted.load(Ordering::Relaxed) as f64 / answered.load(Ordering::Relaxed) as f64;
    print("large reviews admitted, of all that were sent", admitted * 100.0, "%");
}

fn print(name: &str, value: f64, unit: &str) {
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", json!({ "name": name, "value": value, "unit": unit }));
    } else {
        println!("{name:50} {value:8.2} {unit}");
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The duration of each ordinary review, sorted.
async fn latencies(server: &Server, request: &[u8]) -> Vec<Duration> {
    let mut connection = server.caller.connect().await;
    let mut took = Vec::with_capacity(ORDINARY);
    for _ in 0..ORDINARY {
        let begun = Instant::now();
        let answer = server.caller.call(&mut connection, request).await.expect("an ordinary review is answered");
        took.push(begun.elapsed());
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
    }
    took.sort_unstable();
    took
}

/// Kinds of large pods: skipped fields, fields that are read, and fields that are compared.
fn large() -> Vec<Value> {
    let mount = json!({ "name": "countersign-identity", "mountPath": "/run/countersign", "readOnly": true });
    let mounting = json!({ "name": "side", "image": "i", "volumeMounts": vec![mount; 1000] });
    let agent = json!({ "name": "countersign-agent", "env": vec![json!({ "name": "A" }); 205_000] });
    vec![
        json!({ "tolerations": vec![json!({ "key": "a" }); 230_000] }),
        json!({ "initContainers": vec![mounting; 34] }),
        json!({ "initContainers": [agent] }),
        json!({ "volumes": [{ "name": "a".repeat(2_700_000) }] }),
    ]
}

/// An HTTP request with a review of a pod whose spec has these fields.
fn request(namespace: &str, spec: Value) -> Vec<u8> {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "cart-", "namespace": namespace, "annotations": { "padding": "x".repeat(7000) } },
        "spec": { "containers": [{ "name": "app", "image": "registry.example/team/app:1" }] },
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    let body = format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{"group":"","version":"v1","kind":"Pod"}},"namespace":"{namespace}","operation":"CREATE","object":{pod}}}}}"#
    );
    assert!(body.len() < LONGEST_REVIEW && (body.len() < 16_000 || body.len() > 2_500_000), "{}", body.len());
    let head = format!(
        "POST /mutate-pods/by-namespace HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// The serving process, killed on drop.
struct Server {
    process: Child,
    caller: Caller,
}

impl Server {
    fn start() -> Self {
        let mut process =
            Command::new(std::env::current_exe().unwrap()).env(SERVE, "1").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).unwrap();
        let certificate: Vec<u8> = serde_json::from_value(started["certificate"].clone()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(certificate)).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let caller = Caller {
            address: serde_json::from_value(started["address"].clone()).unwrap(),
            tls: TlsConnector::from(Arc::new(config)),
        };
        Self { process, caller }
    }

    /// Its peak memory, in MiB.
    fn peak(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client that calls the server as API servers do, over HTTP/1.1.
#[derive(Clone)]
struct Caller {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Caller {
    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        self.tls.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap()
    }

    /// The answered review; `None` if the server gives up on a body that did not arrive in time.
    async fn call(&self, connection: &mut TlsStream<TcpStream>, request: &[u8]) -> Option<Value> {
        connection.write_all(request).await.ok()?;
        connection.flush().await.ok()?;
        let mut answer = Vec::new();
        loop {
            if connection.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if !head.starts_with("HTTP/1.1 200") {
                return None;
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return Some(serde_json::from_str(body).unwrap());
            }
        }
    }
}
