//! The issuer of the agents under test. It grants the identities it is given, and can be made to fail.

use std::collections::BTreeMap;
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
use countersign_core::wit::{WitAuthority, WitRequest as WitToIssue};
use countersign_core::x509::{LeafRequest, X509Authority};
use countersign_proto::issuer::v1::issuer_server::{Issuer, IssuerServer};
use countersign_proto::issuer::v1::session_request::Kind;
use countersign_proto::issuer::v1::{
    self, Identity, JwtRequest, JwtResponse, Refusal, SessionRequest, SessionResponse, State, WitRequest, WitResponse,
    X509Request, X509Response, session_response,
};
use futures::{Stream, StreamExt};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::Service as _;

pub const NAME: &str = "countersign-issuer.countersign-system.svc";
const DAY: Duration = Duration::from_secs(86_400);

/// How the issuer fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It does not.
    None,
    /// Signs with an authority that is in no bundle.
    WrongRoot,
    /// Signs another id than requested.
    OtherId(String),
    /// Signs another key than requested.
    OtherKey,
    /// Refuses.
    Refuse(i32, String),
    /// Answers no request.
    Silent,
}

/// Its authorities, settings and counters.
pub struct IssuerState {
    pub x509: X509Authority,
    pub jwt: JwtAuthority,
    pub wit: WitAuthority,
    rogue: X509Authority,
    pub identities: watch::Sender<(Vec<Identity>, String)>,
    pub fault: Mutex<Fault>,
    /// Seconds.
    pub x509_ttl: AtomicU64,
    pub hellos: AtomicUsize,
    pub refreshes: AtomicUsize,
    pub jwts: AtomicUsize,
    pub wits: AtomicUsize,
    /// Requests of any kind, including Hello.
    pub requests: AtomicUsize,
    pub connections: AtomicUsize,
    /// The key exchange group of each connection.
    pub key_exchanges: Mutex<Vec<rustls::NamedGroup>>,
    /// Hellos by the name of the session.
    pub session_hellos: Mutex<BTreeMap<String, usize>>,
    /// Sessions whose streams end with this code after Hello.
    pub refused_sessions: Mutex<BTreeMap<String, Code>>,
    /// Open streams.
    pub streams: AtomicUsize,
    /// Incremented to end every stream.
    pub stream_closings: watch::Sender<u64>,
    /// The session whose streams end now, and the code with which they do.
    pub session_closing: watch::Sender<Option<(String, Code)>>,
    /// The delay in milliseconds that agents are asked for when their streams are closed; `None` asks for none.
    pub retry_after_ms: Mutex<Option<u64>>,
    /// Speaks as an operator of a later version: with fields and kinds that are not known yet.
    pub speaks_later_version: AtomicBool,
    pub hello: Mutex<v1::Hello>,
    /// Of the bundle.
    pub sequence: AtomicU64,
    /// Grows whenever all credentials are to be renewed.
    pub renewal: AtomicU64,
    /// Of an earlier version: sends the sequence only within the document, and ignores acknowledgements and receipts.
    pub speaks_earlier_version: AtomicBool,
    /// Sent with every State beside its own.
    pub foreign_bundles: Mutex<Vec<v1::Bundle>>,
    generation: AtomicU64,
    pub acknowledgements: Mutex<Vec<v1::Ack>>,
    pub receipts: Mutex<Vec<v1::Receipt>>,
}

pub struct FakeIssuer {
    pub address: SocketAddr,
    pub state: Arc<IssuerState>,
    control_plane: X509Authority,
    task: tokio::task::JoinHandle<()>,
}

pub fn identity(id: &str) -> Identity {
    Identity { spiffe_id: id.into(), x509_ttl: 3600, jwt_ttl: 300, ..Identity::default() }
}

impl FakeIssuer {
    pub async fn start(identities: Vec<Identity>) -> Self {
        Self::bind("127.0.0.1:0".parse().unwrap(), IssuerState::new(identities)).await
    }

    pub async fn bind(address: SocketAddr, state: Arc<IssuerState>) -> Self {
        let now = Timestamp::now();
        let control_plane = X509Authority::generate_control_plane(KeyType::EcP256, DAY, now).unwrap();
        Self::bind_with(address, state, control_plane).await
    }

    /// Stops listening and ends every connection; its state is returned for an issuer that replaces it.
    pub async fn stop(self) -> (SocketAddr, Arc<IssuerState>, X509Authority) {
        self.task.abort();
        let _ = self.task.await;
        self.state.stream_closings.send_modify(|closings| *closings += 1);
        (self.address, self.state, self.control_plane)
    }

    pub async fn bind_with(address: SocketAddr, state: Arc<IssuerState>, control_plane: X509Authority) -> Self {
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
        let service = IssuerServer::from_arc(Arc::new(Api(Arc::clone(&state))));
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), service, Arc::clone(&state)));
        Self { address, state, control_plane, task }
    }

    pub fn control_plane_root_pem(&self) -> String {
        self.control_plane.certificate().pem()
    }

    /// Sends every session these identities from now on.
    pub fn grant(&self, identities: Vec<Identity>) {
        self.state.identities.send_replace((identities, String::new()));
    }

    /// Ends every new stream of `session` with `code` after its Hello.
    pub fn refuse_session(&self, session: &str, code: Code) {
        self.state.refused_sessions.lock().unwrap().insert(session.into(), code);
    }

    pub fn accept_session(&self, session: &str) {
        self.state.refused_sessions.lock().unwrap().remove(session);
    }

    /// Ends the open streams of `session` with `code`.
    pub fn close_streams_of(&self, session: &str, code: Code) {
        self.state.session_closing.send_replace(Some((session.into(), code)));
    }

    pub fn hellos_of(&self, session: &str) -> usize {
        self.state.session_hellos.lock().unwrap().get(session).copied().unwrap_or_default()
    }

    /// Sends every session its State again, with a bundle of this sequence.
    pub fn publish_sequence(&self, sequence: u64) {
        self.state.sequence.store(sequence, Ordering::Relaxed);
        self.state.identities.send_modify(|_| {});
    }

    /// Asks every session to renew all of its credentials.
    pub fn renew(&self) {
        self.state.renewal.fetch_add(1, Ordering::Relaxed);
        self.state.identities.send_modify(|_| {});
    }

    /// The acknowledgements so far: generations, each with the sequences by trust domain.
    pub fn acknowledgements(&self) -> Vec<(u64, Vec<(String, u64)>)> {
        let sequence = |one: &v1::BundleSequence| (one.trust_domain.clone(), one.sequence);
        let acknowledgements = self.state.acknowledgements.lock().unwrap();
        acknowledgements.iter().map(|ack| (ack.generation, ack.sequences.iter().map(sequence).collect())).collect()
    }

    pub fn withdraw(&self, reason: &str) {
        self.state.identities.send_replace((Vec::new(), reason.into()));
    }

    pub fn set_fault(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    pub fn x509_ttl(&self, seconds: u64) {
        self.state.x509_ttl.store(seconds, Ordering::Relaxed);
    }

    /// Asks every stream to move, as a replica does that terminates.
    pub fn move_streams(&self, delay: Duration) {
        *self.state.retry_after_ms.lock().unwrap() = Some(delay.as_millis().try_into().unwrap());
        self.close_streams();
    }

    pub fn close_streams(&self) {
        self.state.stream_closings.send_modify(|closings| *closings += 1);
    }
}

impl IssuerState {
    pub fn new(identities: Vec<Identity>) -> Arc<Self> {
        let now = Timestamp::now();
        let domain: TrustDomain = "example.org".parse().unwrap();
        let authority = || X509Authority::generate(&domain, KeyType::EcP256, DAY, now).unwrap();
        Arc::new(Self {
            x509: authority(),
            rogue: authority(),
            jwt: JwtAuthority::generate(KeyType::EcP256).unwrap(),
            wit: WitAuthority::generate(KeyType::EcP256).unwrap(),
            identities: watch::Sender::new((identities, "no WorkloadIdentity selects it".into())),
            fault: Mutex::new(Fault::None),
            x509_ttl: AtomicU64::new(3600),
            hellos: AtomicUsize::new(0),
            refreshes: AtomicUsize::new(0),
            jwts: AtomicUsize::new(0),
            wits: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            key_exchanges: Mutex::default(),
            session_hellos: Mutex::default(),
            refused_sessions: Mutex::default(),
            streams: AtomicUsize::new(0),
            retry_after_ms: Mutex::new(None),
            speaks_later_version: AtomicBool::new(false),
            hello: Mutex::default(),
            stream_closings: watch::Sender::new(0),
            session_closing: watch::Sender::new(None),
            sequence: AtomicU64::new(1),
            renewal: AtomicU64::new(0),
            speaks_earlier_version: AtomicBool::new(false),
            foreign_bundles: Mutex::default(),
            generation: AtomicU64::new(0),
            acknowledgements: Mutex::default(),
            receipts: Mutex::default(),
        })
    }

    pub fn bundle(&self) -> Bundle {
        Bundle {
            trust_domain: "example.org".parse().unwrap(),
            x509_authorities: vec![self.x509.certificate().clone()],
            jwt_authorities: vec![self.jwt.verification_key().clone()],
            wit_authorities: vec![self.wit.verification_key().clone()],
            sequence: self.sequence.load(Ordering::Relaxed),
            refresh_hint: Duration::from_secs(300),
        }
    }

    fn state_message(&self) -> SessionResponse {
        let (identities, reason) = self.identities.borrow().clone();
        let reason = if identities.is_empty() { reason } else { String::new() };
        let bundle = self.bundle();
        let sequence = if self.speaks_earlier_version.load(Ordering::Relaxed) { 0 } else { bundle.sequence };
        let own = v1::Bundle {
            trust_domain: "example.org".into(),
            document: bundle.to_json().into(),
            sequence,
            ..v1::Bundle::default()
        };
        let foreign = self.foreign_bundles.lock().unwrap().clone();
        let bundles = if identities.is_empty() { Vec::new() } else { std::iter::once(own).chain(foreign).collect() };
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let state = State {
            identities,
            reason,
            bundles,
            generation,
            renewal: self.renewal.load(Ordering::Relaxed),
            ..State::default()
        };
        SessionResponse { kind: Some(session_response::Kind::State(state)) }
    }

    fn id_or_default(&self, requested: &str) -> Option<SpiffeId> {
        let (identities, _) = &*self.identities.borrow();
        let found = identities.iter().find(|identity| requested.is_empty() || identity.spiffe_id == requested)?;
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

    fn wit(&self, request: &WitRequest) -> SessionResponse {
        self.wits.fetch_add(1, Ordering::Relaxed);
        let id = self.id_or_default(&request.spiffe_id).unwrap();
        let csr = Csr::verify(&request.csr).unwrap();
        let other_key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let fault = self.fault.lock().unwrap().clone();
        let confirmation = if fault == Fault::OtherKey { other_key.public_key() } else { csr.public_key_spki() };
        let ttl =
            self.identities.borrow().0.iter().find(|identity| identity.spiffe_id == id.to_string()).unwrap().wit_ttl;
        let to_issue = WitToIssue { id: &id, confirmation, ttl: Duration::from_secs(ttl.into()) };
        let token = self.wit.issue(&to_issue, Timestamp::now()).unwrap().token.to_string();
        let answer = WitResponse { id: request.id, spiffe_id: id.to_string(), token, refusal: None };
        SessionResponse { kind: Some(session_response::Kind::Wit(answer)) }
    }

    fn answer(&self, request: SessionRequest) -> Option<SessionResponse> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if *self.fault.lock().unwrap() == Fault::Silent {
            return None;
        }
        match request.kind? {
            Kind::Hello(hello) => Some(self.x509(&hello.x509?)),
            Kind::X509(request) => Some(self.x509(&request)),
            Kind::Jwt(request) => Some(self.jwt(&request)),
            Kind::Wit(request) => Some(self.wit(&request)),
            Kind::TokenRefresh(_) => {
                self.refreshes.fetch_add(1, Ordering::Relaxed);
                None
            }
            Kind::Ack(_) | Kind::Receipt(_) if self.speaks_earlier_version.load(Ordering::Relaxed) => None,
            Kind::Ack(ack) => {
                self.acknowledgements.lock().unwrap().push(ack);
                None
            }
            Kind::Receipt(receipt) => {
                self.receipts.lock().unwrap().push(receipt);
                None
            }
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, service: IssuerServer<Api>, state: Arc<IssuerState>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        tcp.set_nodelay(true).unwrap();
        state.connections.fetch_add(1, Ordering::Relaxed);
        let (acceptor, service, state) = (acceptor.clone(), service.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else {
                return;
            };
            let group = tls.get_ref().1.negotiated_key_exchange_group().map(|group| group.name());
            state.key_exchanges.lock().unwrap().extend(group);
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (mut service, state) = (service.clone(), Arc::clone(&state));
                async move {
                    if state.speaks_later_version.load(Ordering::Relaxed) {
                        return Ok(super::later_version::serve(Api(state), request).await);
                    }
                    service.call(request).await
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

pub(super) struct Api(Arc<IssuerState>);

#[tonic::async_trait]
impl Issuer for Api {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (responses, receiver) = mpsc::channel(16);
        let state = Arc::clone(&self.0);
        tokio::spawn(async move {
            state.streams.fetch_add(1, Ordering::Relaxed);
            serve_stream(Arc::clone(&state), request.into_inner(), responses).await;
            state.streams.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(Response::new(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed()))
    }
}

async fn serve_stream(
    issuer: Arc<IssuerState>,
    mut requests: Streaming<SessionRequest>,
    responses: mpsc::Sender<Result<SessionResponse, Status>>,
) {
    let (mut identities, mut stream_closings) = (issuer.identities.subscribe(), issuer.stream_closings.subscribe());
    let mut session_closing = issuer.session_closing.subscribe();
    let Ok(Some(hello)) = requests.message().await else {
        return;
    };
    assert!(matches!(hello.kind, Some(Kind::Hello(_))), "the first message is Hello");
    issuer.hellos.fetch_add(1, Ordering::Relaxed);
    let mut session = String::new();
    if let Some(Kind::Hello(hello)) = &hello.kind {
        *issuer.hello.lock().unwrap() = hello.clone();
        session.clone_from(&hello.session);
    }
    *issuer.session_hellos.lock().unwrap().entry(session.clone()).or_default() += 1;
    let refused = issuer.refused_sessions.lock().unwrap().get(&session).copied();
    if let Some(code) = refused {
        let _ = responses.send(Err(Status::new(code, format!("session {session} is refused")))).await;
        return;
    }
    let unknown = || SessionResponse { kind: None };
    if issuer.speaks_later_version.load(Ordering::Relaxed) {
        let _ = responses.send(Ok(unknown())).await;
    }
    let _ = responses.send(Ok(issuer.state_message())).await;
    if issuer.speaks_later_version.load(Ordering::Relaxed) {
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
            _ = identities.changed() => Some(issuer.state_message()),
            code = closed(&mut session_closing, &session) => {
                let _ = responses.send(Err(Status::new(code, "the stream is closed"))).await;
                return;
            }
            _ = stream_closings.changed() => {
                let mut status = Status::unavailable("the issuer is going away");
                if let Some(wait) = *issuer.retry_after_ms.lock().unwrap() {
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

/// Resolves when the streams of `session` are to end, with the code.
async fn closed(closing: &mut watch::Receiver<Option<(String, Code)>>, session: &str) -> Code {
    let is_own = |closing: &Option<(String, Code)>| closing.as_ref().is_some_and(|(name, _)| name == session);
    let code = closing.wait_for(is_own).await.ok().and_then(|closing| closing.as_ref().map(|(_, code)| *code));
    match code {
        Some(code) => code,
        None => std::future::pending().await,
    }
}
