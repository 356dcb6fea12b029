//! Handshakes with the admission port, and what its peers may use.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::AtomicBool,
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
    response::Response,
};
use countersign_runtime::connections::{ConnectionLimiter, ConnectionMetrics, Peer};
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::Service as _;

use super::*;
use crate::{
    ca::{self, CaState, ValidityPeriods},
    control_plane::Current,
    inject::{AgentOptions, AgentResources, PullPolicy},
    large_reviews::{BYTES, LONGEST_ORDINARY, LargeReviews, SLOTS_PER_NAMESPACE},
    metrics::Metrics,
    serving::StoredCertificate,
};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
const NAME: &str = "countersign-webhook.countersign-system.svc";

fn authority() -> CaState {
    let (state, now) = (CaState::default(), Timestamp::now());
    let periods = ValidityPeriods::new(DAY * 90, DAY, DAY / 12).unwrap();
    state.after(&ca::next(&state, periods, now), periods, now).unwrap()
}

fn publish(certificate: &ServingCertificate, authority: &CaState) {
    let issued = authority.issue(&[NAME.to_owned()], Timestamp::now()).unwrap();
    let stored = StoredCertificate::read(issued.certificate.as_bytes(), issued.key.as_bytes()).unwrap();
    certificate.publish(stored.into_certified_key());
}

fn client(
    trusted: &CaState,
    versions: &[&'static rustls::SupportedProtocolVersion],
    provider: CryptoProvider,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(trusted.bundle().as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(client))
}

fn handshake(
    server: &Arc<ServerConfig>,
    trusted: &CaState,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<(), rustls::Error> {
    connect(server, trusted, versions, aws_lc_rs::default_provider()).map(drop)
}

fn connect(
    server: &Arc<ServerConfig>,
    trusted: &CaState,
    versions: &[&'static rustls::SupportedProtocolVersion],
    provider: CryptoProvider,
) -> Result<ClientConnection, rustls::Error> {
    let mut client = ClientConnection::new(client(trusted, versions, provider)?, NAME.try_into().unwrap())?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(client)
}

#[test]
fn what_is_published_is_served_from_the_next_handshake_on() {
    let certificate = Arc::new(ServingCertificate::default());
    let server = tls_config(Arc::clone(&certificate)).unwrap();
    let (old, new) = (authority(), authority());
    assert!(certificate.current().is_none());
    assert!(handshake(&server, &old, &[&TLS13]).is_err());
    publish(&certificate, &old);
    assert!(certificate.current().is_some());
    assert_eq!(handshake(&server, &old, &[&TLS13]), Ok(()));
    publish(&certificate, &new);
    assert_eq!(handshake(&server, &new, &[&TLS13]), Ok(()));
    assert!(handshake(&server, &old, &[&TLS13]).is_err());
}

#[test]
fn nothing_below_tls_1_3_is_served() {
    let (certificate, authority) = (Arc::new(ServingCertificate::default()), authority());
    publish(&certificate, &authority);
    let server = tls_config(certificate).unwrap();
    assert!(handshake(&server, &authority, &[&TLS12]).is_err());
}

#[test]
fn key_exchange_is_post_quantum_and_x25519_with_a_peer_that_has_nothing_else() {
    let (certificate, authority) = (Arc::new(ServingCertificate::default()), authority());
    publish(&certificate, &authority);
    let server = tls_config(certificate).unwrap();
    let only = |group| CryptoProvider { kx_groups: vec![group], ..aws_lc_rs::default_provider() };
    for (provider, group) in [
        (aws_lc_rs::default_provider(), NamedGroup::X25519MLKEM768),
        (only(aws_lc_rs::kx_group::X25519), NamedGroup::X25519),
    ] {
        let client = connect(&server, &authority, &[&TLS13], provider).unwrap();
        assert_eq!(client.negotiated_key_exchange_group().map(|agreed| agreed.name()), Some(group));
    }
}

/// A TLS client of one address of this machine.
struct Caller {
    server: SocketAddr,
    from: Ipv4Addr,
    tls: TlsConnector,
}

impl Caller {
    async fn tcp(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((self.from, 0))).unwrap();
        socket.connect(self.server).await.unwrap()
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.tls.connect(NAME.try_into().unwrap(), self.tcp().await).await.unwrap()
    }
}

/// Serves with a place for `places` connections of each address, and returns two addresses to call from.
async fn port(app: Arc<App>, places: usize) -> [Caller; 2] {
    let (certificate, authority) = (Arc::new(ServingCertificate::default()), authority());
    publish(&certificate, &authority);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = listener.local_addr().unwrap();
    let connections = ConnectionLimits { waiting_per_address: places, ..LIMITS.connections };
    let limits = HttpLimits { connections, ..LIMITS };
    tokio::spawn(serve(listener, certificate, app, limits, CancellationToken::new()));
    let tls = TlsConnector::from(client(&authority, &[&TLS13], aws_lc_rs::default_provider()).unwrap());
    [1, 2].map(|last| Caller { server, from: Ipv4Addr::new(127, 0, 0, last), tls: tls.clone() })
}

fn app() -> Arc<App> {
    Arc::new(App {
        consequences: crate::consequences::Consequences::default(),
        options: AgentOptions {
            image: "countersign.local/agent:dev".into(),
            pull_policy: PullPolicy::IfNotPresent,
            resources: AgentResources::default(),
            meshes: vec![],
            log: None,
        },
        settings: Current::default(),
        metrics: Metrics::new(),
        large_reviews: LargeReviews::new(),
        serves_until: watch::channel(None).1,
        draining: AtomicBool::new(false),
    })
}

/// A review of the deletion of a WorkloadIdentity in namespace `shop`, at least this long.
fn review(length: usize) -> Vec<u8> {
    let object = json!({ "metadata": { "name": "a", "annotations": { "a": "a".repeat(length) } } });
    let kind = json!({ "group": "countersign.dev", "version": "v1alpha1", "kind": "WorkloadIdentity" });
    let request = format!(r#"{{"uid":"u1","namespace":"shop","kind":{kind},"operation":"DELETE","object":{object}}}"#);
    format!(r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{request}}}"#).into_bytes()
}

fn request() -> Vec<u8> {
    let review = review(0);
    let head = format!("POST /validate HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", review.len());
    [head.into_bytes(), review].concat()
}

async fn is_answered(connection: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(r#""uid":"u1""#) {
        if connection.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

/// `manifests/base/webhook/deployment.yaml` gives the container 128 MiB.
#[test]
fn half_of_the_memory_holds_the_reviews_that_may_arrive_at_the_same_time() {
    let ordinary = LIMITS.connections.total * LIMITS.streams as usize * LONGEST_ORDINARY;
    assert!(ordinary + BYTES <= 64 * 1024 * 1024, "{ordinary}");
}

#[tokio::test]
async fn connections_of_a_stranger_take_no_place_of_an_api_servers() {
    const PLACES: usize = 4;
    let [api_server, stranger] = port(app(), PLACES).await;
    let mut kept = api_server.connect().await;
    kept.write_all(&request()).await.unwrap();
    assert!(is_answered(&mut kept).await);
    let mut first = stranger.tcp().await;
    let mut others = Vec::new();
    for _ in 0..PLACES {
        others.push(stranger.tcp().await);
    }
    assert_eq!(first.read(&mut [0; 1]).await.unwrap_or(0), 0, "the stranger's own makes room");
    for connection in [&mut kept, &mut api_server.connect().await] {
        connection.write_all(&request()).await.unwrap();
        assert!(is_answered(connection).await);
    }
}

/// A connection of an address that may have one, and whether a further one would find a place.
struct OnlyPlace {
    limiter: ConnectionLimiter,
    address: SocketAddr,
    peer: Peer,
}

impl OnlyPlace {
    fn new() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let limits = ConnectionLimits { waiting_per_address: 1, ..LIMITS.connections };
        let limiter = ConnectionLimiter::new(limits, ConnectionMetrics::default());
        let peer = Peer::new(address, limiter.try_admit(address.ip()).unwrap());
        Self { limiter, address, peer }
    }

    fn call(&self, app: &Arc<App>, body: Body) -> impl Future<Output = Response> + use<> {
        let mut request = Request::post("/validate").body(body).unwrap();
        request.extensions_mut().insert(self.peer.clone());
        let mut router = server::admission(app.clone());
        Box::pin(async move { router.call(request).await.unwrap() })
    }

    fn is_free(&self) -> bool {
        self.limiter.try_admit(self.address.ip()).is_some()
    }
}

#[tokio::test]
async fn a_connection_that_waits_for_an_answer_is_not_evicted() {
    let app = app();
    let (place, evaluation) = (OnlyPlace::new(), app.large_reviews.evaluate().await);
    let mut answer = place.call(&app, review(LONGEST_ORDINARY).into());
    assert!((&mut answer).now_or_never().is_none());
    assert!(!place.is_free(), "it waits to be evaluated");
    drop(evaluation);
    assert_eq!(answer.await.status(), StatusCode::OK);
    assert!(place.is_free());
}

#[tokio::test]
async fn a_connection_that_waits_for_a_slot_is_not_evicted() {
    let app = app();
    let mut slots = Vec::new();
    for _ in 0..SLOTS_PER_NAMESPACE {
        slots.push(app.large_reviews.slot("shop", 1).await.unwrap());
    }
    let place = OnlyPlace::new();
    let mut answer = place.call(&app, review(LONGEST_ORDINARY).into());
    assert!((&mut answer).now_or_never().is_none());
    assert!(!place.is_free());
    drop(slots);
    assert_eq!(answer.await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_connection_whose_review_does_not_arrive_is_evicted() {
    let place = OnlyPlace::new();
    let beginning = futures::stream::iter([Ok::<_, std::io::Error>(review(0)[..100].to_vec())]);
    let body = Body::from_stream(beginning.chain(futures::stream::pending()));
    let mut answer = place.call(&app(), body);
    assert!((&mut answer).now_or_never().is_none());
    assert!(place.is_free());
}
