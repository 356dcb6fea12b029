//! The issuer that agents under test talk to. It grants what it is told to, and can be made to misbehave.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_core::bundle::Bundle;
use countersign_core::csr::Csr;
use countersign_core::id::{SpiffeId, TrustDomain};
use countersign_core::jwt::{JwtAuthority, JwtRequest as JwtToIssue};
use countersign_core::key::{KeyType, PrivateKey};
use countersign_core::x509::{LeafRequest, X509Authority};
use countersign_proto::issuer::v1::issuer_server::{Issuer, IssuerServer};
use countersign_proto::issuer::v1::session_request::Kind;
use countersign_proto::issuer::v1::{
    self, Identity, JwtRequest, JwtResponse, Refusal, SessionRequest, SessionResponse, State, X509Request,
    X509Response, session_response,
};
use futures::{Stream, StreamExt};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;

pub const NAME: &str = "countersign-issuer.countersign-system.svc";
const DAY: Duration = Duration::from_secs(86_400);

/// How the issuer misbehaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// Signs with an authority that is in no bundle.
    WrongRoot,
    /// Signs another id than was asked for.
    OtherId(String),
    /// Signs another key than was asked for.
    OtherKey,
    /// Refuses.
    Refuse(i32, String),
    /// Answers no request.
    Silent,
}

/// What was signed and how, and who came.
pub struct Inner {
    pub x509: X509Authority,
    pub jwt: JwtAuthority,
    rogue: X509Authority,
    pub identities: watch::Sender<(Vec<Identity>, String)>,
    pub fault: Mutex<Fault>,
    /// Seconds.
    pub x509_ttl: AtomicU64,
    pub hellos: AtomicUsize,
    pub refreshes: AtomicUsize,
    pub jwts: AtomicUsize,
    /// Requests of any kind that came, Hello among them.
    pub asked: AtomicUsize,
    pub connections: AtomicUsize,
    /// By which group the keys of each connection were agreed.
    pub key_exchanges: Mutex<Vec<rustls::NamedGroup>>,
    /// Open streams.
    pub streams: AtomicUsize,
    /// Raised to end every stream.
    pub cut: watch::Sender<u64>,
    /// Milliseconds after which agents whose streams are cut shall come back; none: nothing is said of it.
    pub come_back: Mutex<Option<u64>>,
    /// Speaks as an operator of a later version: with fields and kinds that are not known yet.
    pub future: AtomicBool,
    pub hello: Mutex<v1::Hello>,
}

pub struct FakeIssuer {
    pub address: SocketAddr,
    pub inner: Arc<Inner>,
    control_plane: X509Authority,
    task: tokio::task::JoinHandle<()>,
}

pub fn identity(id: &str) -> Identity {
    Identity { spiffe_id: id.into(), x509_ttl: 3600, jwt_ttl: 300, ..Identity::default() }
}

impl FakeIssuer {
    pub async fn start(identities: Vec<Identity>) -> Self {
        Self::bind("127.0.0.1:0".parse().unwrap(), Inner::new(identities)).await
    }

    pub async fn bind(address: SocketAddr, inner: Arc<Inner>) -> Self {
        let now = Timestamp::now();
        let control_plane = X509Authority::generate_control_plane(KeyType::EcP256, DAY, now).unwrap();
        Self::bind_with(address, inner, control_plane).await
    }

    /// Stops listening and ends every connection; what it knows is kept for another that takes its place.
    pub async fn stop(self) -> (SocketAddr, Arc<Inner>, X509Authority) {
        self.task.abort();
        let _ = self.task.await;
        self.inner.cut.send_modify(|cut| *cut += 1);
        (self.address, self.inner, self.control_plane)
    }

    pub async fn bind_with(address: SocketAddr, inner: Arc<Inner>, control_plane: X509Authority) -> Self {
        let now = Timestamp::now();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let issued = control_plane.issue_server(key.public_key(), &[NAME.to_owned()], DAY, now).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = issued.chain.into_iter().map(CertificateDer::from).collect();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()).into())
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = IssuerServer::from_arc(Arc::new(Api(Arc::clone(&inner))));
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), service, Arc::clone(&inner)));
        Self { address, inner, control_plane, task }
    }

    pub fn control_plane_root_pem(&self) -> String {
        self.control_plane.certificate().pem()
    }

    /// Tells every session from now on.
    pub fn grant(&self, identities: Vec<Identity>) {
        self.inner.identities.send_replace((identities, String::new()));
    }

    pub fn withdraw(&self, reason: &str) {
        self.inner.identities.send_replace((Vec::new(), reason.into()));
    }

    pub fn misbehave(&self, fault: Fault) {
        *self.inner.fault.lock().unwrap() = fault;
    }

    pub fn x509_ttl(&self, seconds: u64) {
        self.inner.x509_ttl.store(seconds, Ordering::Relaxed);
    }

    /// Has every stream move, as a replica that goes does.
    pub fn move_streams(&self, come_back: Duration) {
        *self.inner.come_back.lock().unwrap() = Some(come_back.as_millis().try_into().unwrap());
        self.cut_streams();
    }

    pub fn cut_streams(&self) {
        self.inner.cut.send_modify(|cut| *cut += 1);
    }
}

impl Inner {
    pub fn new(identities: Vec<Identity>) -> Arc<Self> {
        let now = Timestamp::now();
        let domain: TrustDomain = "example.org".parse().unwrap();
        let authority = || X509Authority::generate(&domain, KeyType::EcP256, DAY, now).unwrap();
        Arc::new(Self {
            x509: authority(),
            rogue: authority(),
            jwt: JwtAuthority::generate(KeyType::EcP256).unwrap(),
            identities: watch::Sender::new((identities, "no WorkloadIdentity selects it".into())),
            fault: Mutex::new(Fault::None),
            x509_ttl: AtomicU64::new(3600),
            hellos: AtomicUsize::new(0),
            refreshes: AtomicUsize::new(0),
            jwts: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            key_exchanges: Mutex::default(),
            streams: AtomicUsize::new(0),
            come_back: Mutex::new(None),
            future: AtomicBool::new(false),
            hello: Mutex::default(),
            cut: watch::Sender::new(0),
        })
    }

    pub fn bundle(&self) -> Bundle {
        Bundle {
            trust_domain: "example.org".parse().unwrap(),
            x509_authorities: vec![self.x509.certificate().clone()],
            jwt_authorities: vec![self.jwt.verification_key().clone()],
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        }
    }

    fn state(&self) -> SessionResponse {
        let (identities, reason) = self.identities.borrow().clone();
        let reason = if identities.is_empty() { reason } else { String::new() };
        let bundle = v1::Bundle { trust_domain: "example.org".into(), document: self.bundle().to_json() };
        let state = State { identities, reason, bundles: vec![bundle], ..State::default() };
        SessionResponse { kind: Some(session_response::Kind::State(state)) }
    }

    fn id_or_default(&self, asked: &str) -> Option<SpiffeId> {
        let (identities, _) = &*self.identities.borrow();
        let found = identities.iter().find(|identity| asked.is_empty() || identity.spiffe_id == asked)?;
        found.spiffe_id.parse().ok()
    }

    fn x509(&self, request: &X509Request) -> SessionResponse {
        let fault = self.fault.lock().unwrap().clone();
        let refused = |code, message: &str| X509Response {
            id: request.id,
            refusal: Some(Refusal { code, message: message.into(), retry_after_ms: 0 }),
            ..X509Response::default()
        };
        let answer = match (self.id_or_default(&request.spiffe_id), &fault) {
            (None, _) => refused(7, "this pod has no identity"),
            (_, Fault::Refuse(code, message)) => refused(*code, message),
            (Some(id), fault) => {
                let csr = Csr::verify(&request.csr).unwrap();
                let other_key = PrivateKey::generate(KeyType::EcP256).unwrap();
                let spki = if *fault == Fault::OtherKey { other_key.public_key() } else { csr.public_key_spki() };
                let signed: SpiffeId =
                    if let Fault::OtherId(other) = fault { other.parse().unwrap() } else { id.clone() };
                let authority = if *fault == Fault::WrongRoot { &self.rogue } else { &self.x509 };
                let ttl = Duration::from_secs(self.x509_ttl.load(Ordering::Relaxed));
                let leaf = LeafRequest { spki, id: &signed, dns_names: &[], ttl };
                let issued = authority.issue(&leaf, Timestamp::now()).unwrap();
                let (certificates, spiffe_id) = (issued.chain, id.to_string());
                X509Response { id: request.id, spiffe_id, certificates, refusal: None }
            }
        };
        SessionResponse { kind: Some(session_response::Kind::X509(answer)) }
    }

    fn jwt(&self, request: &JwtRequest) -> SessionResponse {
        self.jwts.fetch_add(1, Ordering::Relaxed);
        let (id, audiences) = (self.id_or_default(&request.spiffe_id).unwrap(), &request.audiences);
        let to_issue = JwtToIssue { id: &id, audiences, ttl: Duration::from_secs(300), issuer: None };
        let mut answer = JwtResponse { id: request.id, spiffe_id: id.to_string(), ..JwtResponse::default() };
        if audiences.iter().any(|audience| audience == "forbidden") {
            let message = "the audience forbidden is not granted".into();
            answer.refusal = Some(Refusal { code: 7, message, retry_after_ms: 0 });
        } else {
            answer.token = self.jwt.issue(&to_issue, Timestamp::now()).unwrap().token.to_string();
        }
        SessionResponse { kind: Some(session_response::Kind::Jwt(answer)) }
    }

    fn answer(&self, request: SessionRequest) -> Option<SessionResponse> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if *self.fault.lock().unwrap() == Fault::Silent {
            return None;
        }
        match request.kind? {
            Kind::Hello(hello) => Some(self.x509(&hello.x509?)),
            Kind::X509(request) => Some(self.x509(&request)),
            Kind::Jwt(request) => Some(self.jwt(&request)),
            Kind::TokenRefresh(_) => {
                self.refreshes.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, service: IssuerServer<Api>, inner: Arc<Inner>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        tcp.set_nodelay(true).unwrap();
        inner.connections.fetch_add(1, Ordering::Relaxed);
        let (acceptor, service, inner) = (acceptor.clone(), service.clone(), Arc::clone(&inner));
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else {
                return;
            };
            let agreed = tls.get_ref().1.negotiated_key_exchange_group().map(|group| group.name());
            inner.key_exchanges.lock().unwrap().extend(agreed);
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (mut service, inner) = (service.clone(), Arc::clone(&inner));
                async move {
                    if inner.future.load(Ordering::Relaxed) {
                        return Ok(super::future::serve(Api(inner), request).await);
                    }
                    service.call(request).await
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

pub(super) struct Api(Arc<Inner>);

#[tonic::async_trait]
impl Issuer for Api {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (responses, receiver) = mpsc::channel(16);
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            inner.streams.fetch_add(1, Ordering::Relaxed);
            converse(Arc::clone(&inner), request.into_inner(), responses).await;
            inner.streams.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(Response::new(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed()))
    }
}

async fn converse(
    issuer: Arc<Inner>,
    mut requests: Streaming<SessionRequest>,
    responses: mpsc::Sender<Result<SessionResponse, Status>>,
) {
    let (mut identities, mut cut) = (issuer.identities.subscribe(), issuer.cut.subscribe());
    let Ok(Some(hello)) = requests.message().await else {
        return;
    };
    assert!(matches!(hello.kind, Some(Kind::Hello(_))), "the first message is Hello");
    issuer.hellos.fetch_add(1, Ordering::Relaxed);
    if let Some(Kind::Hello(hello)) = &hello.kind {
        *issuer.hello.lock().unwrap() = hello.clone();
    }
    let unknown = || SessionResponse { kind: None };
    if issuer.future.load(Ordering::Relaxed) {
        let _ = responses.send(Ok(unknown())).await;
    }
    let _ = responses.send(Ok(issuer.state())).await;
    if issuer.future.load(Ordering::Relaxed) {
        let _ = responses.send(Ok(unknown())).await;
    }
    if let Some(answer) = issuer.answer(hello) {
        let _ = responses.send(Ok(answer)).await;
    }
    loop {
        let response = tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => issuer.answer(request),
                _ => return,
            },
            _ = identities.changed() => Some(issuer.state()),
            _ = cut.changed() => {
                let mut status = Status::unavailable("the issuer is going away");
                if let Some(wait) = *issuer.come_back.lock().unwrap() {
                    status.metadata_mut().insert("retry-after-ms", wait.into());
                }
                let _ = responses.send(Err(status)).await;
                return;
            }
        };
        if let Some(response) = response {
            let _ = responses.send(Ok(response)).await;
        }
    }
}
