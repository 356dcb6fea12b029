//! A whole issuer in memory: a cluster's keys and tokens, an index fed by hand, an authority, and a real client over an
//! in-memory connection. Time is tokio's and stands still unless a test moves it.

#![allow(unreachable_pub, dead_code, missing_docs, reason = "shared by tests, each of which uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

pub mod tls;

use countersign_policy as policy;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_contract::objects::journal::{CONTROL_PLANE_SECRET, trust_domain_secret};
use countersign_core::{
    journal::{AuthorityPolicy, Journal, LocalMaker, RotationRequests},
    key::{KeyType, PrivateKey},
};
use countersign_index::{Index, PodRecord, SharedIndex};
use countersign_issuer::events::{EventSink, PodEvent, PodEvents, PodRef};
use countersign_issuer::freshness::{Freshness, View};
use countersign_issuer::published::Published;
use countersign_issuer::token_keys::{FetchError, KeySource, PublishedKeys, TokenKeys};
use countersign_issuer::{
    Context,
    agent_versions::SupportPolicy,
    pod_lookup::{PodLookup, PodSource},
    registry::{Registry, StreamLimits},
};
use countersign_operator::{
    authorities::{
        Authorities,
        journal_cache::{AuthorityConfig, StoredSecret, control_plane_policy},
    },
    checks::Checks,
    config::MAX_TOKEN_LIFE,
    metrics::Metrics,
};
use countersign_proto::issuer::v1::{self, issuer_client::IssuerClient, session_request, session_response};
use countersign_runtime::readiness::Readiness;
use countersign_runtime::{clock::Clock, clock_skew::ClockSkewMonitor};
use futures::{FutureExt as _, future::BoxFuture};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};

pub const CLUSTER: &str = "6f1d-cluster";
pub const ISSUER: &str = "https://kubernetes.default.svc";
pub const AUDIENCE: &str = "countersign.dev/6f1d-cluster";
pub const EPOCH: i64 = 1_800_000_000;

pub fn epoch() -> Timestamp {
    Timestamp::from_second(EPOCH).unwrap()
}

/// A key that signs service account tokens.
pub struct TokenSigner {
    pub kid: &'static str,
    key: PrivateKey,
}

impl TokenSigner {
    pub fn new(kid: &'static str) -> Self {
        Self { kid, key: PrivateKey::generate(KeyType::EcP256).unwrap() }
    }

    pub fn jwk(&self) -> Value {
        let (x, y) = self.key.public_key().key_bits()[1..].split_at(32);
        let text = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": text(x), "y": text(y)})
    }

    pub fn sign(&self, claims: &Value) -> String {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.kid = Some(self.kid.to_owned());
        let key = jsonwebtoken::EncodingKey::from_ec_der(self.key.pkcs8_der());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

/// The claims of a good token of pod `name` with `uid`, valid for an hour.
pub fn claims(name: &str, uid: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": [AUDIENCE], "sub": "system:serviceaccount:shop:orders",
        "exp": EPOCH + 3600, "iat": EPOCH, "nbf": EPOCH, "jti": "1",
        "kubernetes.io": {
            "namespace": "shop", "pod": {"name": name, "uid": uid},
            "serviceaccount": {"name": "orders", "uid": "sa-uid"}, "node": {"name": "n1", "uid": "n1-uid"},
        },
    })
}

/// What the API server would say of its keys; tests change it.
#[derive(Clone, Default)]
pub struct ClusterKeys {
    pub keys: Arc<Mutex<Vec<Value>>>,
    pub fetches: Arc<AtomicU64>,
}

impl KeySource for ClusterKeys {
    fn fetch(&self) -> BoxFuture<'_, Result<PublishedKeys, FetchError>> {
        self.fetches.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let jwks = json!({"keys": *self.keys.lock().unwrap()}).to_string().into_bytes();
        Box::pin(async move { Ok(PublishedKeys { issuer: ISSUER.to_owned(), jwks }) })
    }
}

/// What the API server would say of pods; tests change it.
#[derive(Clone, Default)]
pub struct LiveCluster {
    pub pods: Arc<Mutex<HashMap<String, PodRecord>>>,
    pub reads: Arc<AtomicU64>,
    pub broken: Arc<std::sync::atomic::AtomicBool>,
}

impl PodSource for LiveCluster {
    fn read<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<PodRecord>, String>> {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let pod = self.pods.lock().unwrap().get(name).cloned();
        let broken = self.broken.load(std::sync::atomic::Ordering::SeqCst);
        Box::pin(async move {
            tokio::task::yield_now().await;
            if broken { Err("the API server does not answer".to_owned()) } else { Ok(pod) }
        })
    }
}

pub fn pod(name: &str, uid: &str) -> PodRecord {
    let mut pod = PodRecord::default();
    pod.facts.namespace = "shop".to_owned();
    pod.facts.name = name.to_owned();
    pod.facts.uid = uid.to_owned();
    pod.facts.service_account = "orders".to_owned();
    pod.facts.containers = vec!["app".to_owned(), "proxy".to_owned()];
    pod
}

pub fn trust_domain() -> countersign_crds::TrustDomain {
    serde_json::from_value(json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "TrustDomain",
        "metadata": {"name": "example.org", "uid": "td-uid", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "authority": {},
            "grants": [{
                "namespaces": {"matchNames": ["shop"]},
                "paths": ["/ns/{namespace}/**"],
                "audiences": ["payments", "billing/*"],
                "dnsNames": ["*.{namespace}.svc"],
            }],
        },
    }))
    .unwrap()
}

pub fn identity(name: &str, spec: Value) -> countersign_crds::WorkloadIdentity {
    let mut object = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "WorkloadIdentity",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 1,
                     "creationTimestamp": "2026-01-02T00:00:00Z"},
        "spec": {"trustDomain": "example.org", "selector": {"serviceAccounts": ["orders"]}},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

pub fn orders() -> countersign_crds::WorkloadIdentity {
    identity(
        "orders",
        json!({"jwt": {"audiences": ["payments", "billing/*"]}, "x509": {"dnsNames": ["orders.{namespace}.svc"]}}),
    )
}

fn policy() -> AuthorityPolicy {
    AuthorityPolicy {
        ca_life: Duration::from_secs(86_400),
        longest_svid_life: Duration::from_secs(3_600),
        refresh_hint: Duration::from_secs(300),
        max_delay: Duration::from_secs(1_800),
        taint_max_delay: Duration::from_secs(600),
        x509_key_type: KeyType::EcP256,
        jwt_key_type: KeyType::EcP256,
        wit_key_type: None,
    }
}

pub fn stored(journal: &Journal, version: &str) -> StoredSecret {
    StoredSecret {
        resource_version: version.to_owned(),
        owner: Some("td-uid".to_owned()),
        journal: Some(journal.to_bytes().unwrap()),
    }
}

/// The issuer and all around it.
pub struct World {
    pub index: SharedIndex,
    pub authorities: Authorities,
    pub freshness: Freshness,
    pub signer: TokenSigner,
    pub cluster_keys: ClusterKeys,
    pub live: LiveCluster,
    pub metrics: Arc<Metrics>,
    pub shutdown: CancellationToken,
    pub notices: PodEvents,
    pub clock: Clock,
    pub readiness: Readiness,
    pub checks: Checks,
    pub clock_skew: ClockSkewMonitor,
    pub context: Arc<Context>,
    incoming: mpsc::Sender<std::io::Result<DuplexStream>>,
    channel: Channel,
}

impl World {
    /// An issuer in a cluster with namespace `shop`, pod `orders-0` (uid `p0`), TrustDomain `example.org` and
    /// WorkloadIdentity `orders`.
    pub async fn new() -> Self {
        Self::with_limits(StreamLimits::default()).await
    }

    /// As [`Self::new`], with other limits.
    pub async fn with_limits(limits: StreamLimits) -> Self {
        Self::made_with(limits, SupportPolicy::default(), None).await
    }

    /// As [`Self::new`], with agents that are outdated by this.
    pub async fn with_support(support: SupportPolicy) -> Self {
        Self::made_with(StreamLimits::default(), support, None).await
    }

    /// As [`Self::new`], with streams that see of the authorities what the test publishes, and are not woken by it.
    pub async fn with_publisher() -> (Self, watch::Sender<Arc<Published>>) {
        let (publisher, published) = watch::channel(Arc::default());
        let world = Self::made_with(StreamLimits::default(), SupportPolicy::default(), Some(published)).await;
        publisher.send_replace(world.authorities.subscribe().borrow().clone());
        (world, publisher)
    }

    async fn made_with(
        limits: StreamLimits,
        support: SupportPolicy,
        published: Option<watch::Receiver<Arc<Published>>>,
    ) -> Self {
        let world = Self::empty_with(limits, support, published).await;
        world.index.update(|index| {
            index.apply_domain(policy::trust_domain(&trust_domain(), ""));
            index.apply_identity(policy::workload_identity(&orders()));
            index.apply_pod(pod("orders-0", "p0"));
        });
        world.make_authority();
        world
    }

    /// An issuer in a cluster with namespace `shop` only.
    pub async fn empty() -> Self {
        Self::empty_with(StreamLimits::default(), SupportPolicy::default(), None).await
    }

    async fn empty_with(
        limits: StreamLimits,
        support: SupportPolicy,
        published: Option<watch::Receiver<Arc<Published>>>,
    ) -> Self {
        let begin = tokio::time::Instant::now();
        let clock = Clock::new(move || {
            let elapsed = jiff::SignedDuration::try_from(begin.elapsed()).unwrap();
            epoch().checked_add(elapsed).unwrap()
        });
        let (metrics, readiness) = (Arc::new(Metrics::new()), Readiness::default());
        let checks = Checks::new(&readiness);
        for check in [
            &checks.pods,
            &checks.namespaces,
            &checks.trust_domains,
            &checks.workload_identities,
            &checks.remote_bundles,
        ] {
            check.pass();
        }
        let clock_skew = ClockSkewMonitor::new(clock.clone(), checks.clock.clone(), metrics.clock.clone());
        let index = SharedIndex::new(Index::default());
        index.update(|index| index.apply_namespace("shop", [("team".to_owned(), "a".to_owned())].into()));
        let authorities = Authorities::new(CLUSTER.to_owned(), clock.clone());
        let control_plane_policy = control_plane_policy();
        let root = Journal::create(CLUSTER, None, &control_plane_policy, &LocalMaker, epoch());
        let root = root.now_or_never().unwrap().unwrap();
        authorities.apply_secret(CONTROL_PLANE_SECRET, stored(&root, "1"));
        tokio::spawn(countersign_issuer::state::notify_sessions(authorities.subscribe(), index.clone()));
        let freshness = Freshness::new(clock.clone());
        confirm_views(&freshness);

        let signer = TokenSigner::new("cluster-key");
        let cluster_keys = ClusterKeys::default();
        cluster_keys.keys.lock().unwrap().push(signer.jwk());
        let keys = Box::new(cluster_keys.clone());
        let token_keys = Arc::new(TokenKeys::new(
            keys,
            AUDIENCE.to_owned(),
            MAX_TOKEN_LIFE,
            freshness.clone(),
            checks.token_keys.clone(),
            metrics.issuer.clone(),
        ));
        let live = LiveCluster::default();
        let (events, notices) = EventSink::new(metrics.issuer.clone());
        let shutdown = CancellationToken::new();
        let context = Arc::new(Context {
            pod_lookup: PodLookup::new(Box::new(live.clone()), index.clone(), metrics.issuer.clone()),
            index: index.clone(),
            published: published.unwrap_or_else(|| authorities.subscribe()),
            freshness: freshness.clone(),
            token_keys,
            registry: Registry::new(limits),
            support,
            events,
            metrics: metrics.issuer.clone(),
            index_complete: checks.index_complete(),
            clock: clock.clone(),
            clock_skew: clock_skew.clone(),
            shutdown: shutdown.clone(),
            generation: AtomicU64::new(0),
        });
        let (incoming, connections) = mpsc::channel(8);
        tokio::spawn(countersign_issuer::serve(context.clone(), ReceiverStream::new(connections)));
        let channel = channel(incoming.clone());
        Self {
            context,
            incoming,
            index,
            authorities,
            freshness,
            signer,
            cluster_keys,
            live,
            metrics,
            shutdown,
            notices,
            clock,
            readiness,
            checks,
            clock_skew,
            channel,
        }
    }

    /// Gives trust domain `example.org` its authority.
    pub fn make_authority(&self) {
        let trust_domain = "example.org".parse().unwrap();
        let policy = policy();
        let journal = Journal::create(CLUSTER, Some(&trust_domain), &policy, &LocalMaker, self.clock.now());
        let journal = journal.now_or_never().unwrap().unwrap();
        self.authorities.apply_secret(&trust_domain_secret("example.org"), stored(&journal, "2"));
        let config = AuthorityConfig {
            name: "example.org".to_owned(),
            uid: "td-uid".to_owned(),
            trust_domain,
            policy,
            requests: RotationRequests::default(),
            jwt_issuer: None,
            published_sequence: None,
            adopts: None,
        };
        self.authorities.configure(&[(config.name.clone(), config)].into());
    }

    /// A good token of pod `orders-0`.
    pub fn token(&self) -> String {
        self.signer.sign(&claims("orders-0", "p0"))
    }

    /// A stream that has sent nothing.
    pub async fn stream(&self) -> Stream {
        Client(self.channel.clone()).stream().await.unwrap()
    }

    /// A connection on which nothing was said.
    pub async fn connection(&self) -> DuplexStream {
        connection(&self.incoming).await
    }

    /// Whether the issuer takes connections no more.
    pub async fn closed(&self) {
        self.incoming.closed().await;
    }

    /// A client on a connection of its own.
    pub async fn client(&self) -> Client {
        Client(channel_on(self.connection().await).await)
    }

    /// A stream that said Hello with this token.
    pub async fn hello(&self, token: String, session: &str) -> Stream {
        let stream = self.stream().await;
        let hello =
            v1::Hello { version: "test".to_owned(), token, session: session.to_owned(), ..v1::Hello::default() };
        stream.send(session_request::Kind::Hello(hello)).await;
        stream
    }

    /// A stream of pod `orders-0` which was told its state.
    pub async fn opened(&self) -> (Stream, v1::State) {
        let mut stream = self.hello(self.token(), "").await;
        let state = stream.state().await;
        (stream, state)
    }

    /// With which status a stream with this token ends.
    pub async fn refusal(&self, token: String) -> Status {
        let hello = v1::Hello { token, ..v1::Hello::default() };
        // Of its own: one on which nothing is proven again and again would be ended.
        self.client().await.hello(hello).await.unwrap().end().await
    }

    pub async fn notice(&mut self) -> (PodRef, PodEvent) {
        let (pod, _, notice) = self.notices.next().await.unwrap();
        (pod, notice)
    }
}

/// Every view is what the API server has now.
pub fn confirm_views(freshness: &Freshness) {
    for view in View::ALL {
        freshness.confirm(view, freshness.now());
    }
}

async fn connection(incoming: &mpsc::Sender<std::io::Result<DuplexStream>>) -> DuplexStream {
    let (client, server) = tokio::io::duplex(256 * 1024);
    incoming.send(Ok(server)).await.expect("the issuer takes connections");
    client
}

/// A client that connects again when it must: the issuer ends connections that are of no use.
fn channel(incoming: mpsc::Sender<std::io::Result<DuplexStream>>) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let incoming = incoming.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(connection(&incoming).await)) }
    });
    Endpoint::from_static("http://issuer").connect_with_connector_lazy(connector)
}

async fn channel_on(connection: DuplexStream) -> Channel {
    let mut connection = Some(connection);
    let connector = tower::service_fn(move |_: Uri| {
        let connection = connection.take().map(TokioIo::new);
        async move { connection.ok_or_else(|| std::io::Error::other("one connection only")) }
    });
    Endpoint::from_static("http://issuer").connect_with_connector(connector).await.unwrap()
}

/// A client on a connection of its own.
pub struct Client(pub Channel);

impl Client {
    /// A stream that has sent nothing.
    ///
    /// # Errors
    /// The issuer refuses it at once.
    pub async fn stream(&self) -> Result<Stream, Status> {
        let (requests, outbound) = mpsc::channel(8);
        let response = IssuerClient::new(self.0.clone()).session(ReceiverStream::new(outbound)).await?;
        Ok(Stream { requests, responses: response.into_inner() })
    }

    /// A stream that said Hello.
    ///
    /// # Errors
    /// The issuer refuses it at once.
    pub async fn hello(&self, hello: v1::Hello) -> Result<Stream, Status> {
        let stream = self.stream().await?;
        stream.send(session_request::Kind::Hello(hello)).await;
        Ok(stream)
    }
}

/// The client's end of a stream.
pub struct Stream {
    requests: mpsc::Sender<v1::SessionRequest>,
    responses: Streaming<v1::SessionResponse>,
}

impl Stream {
    pub async fn send(&self, kind: session_request::Kind) {
        self.requests.send(v1::SessionRequest { kind: Some(kind) }).await.unwrap();
    }

    pub async fn next(&mut self) -> session_response::Kind {
        self.responses.message().await.unwrap().unwrap().kind.unwrap()
    }

    pub async fn state(&mut self) -> v1::State {
        match self.next().await {
            session_response::Kind::State(state) => state,
            other => panic!("not a state: {other:?}"),
        }
    }

    pub async fn x509(&mut self, csr: Vec<u8>, token: String) -> v1::X509Response {
        self.x509_as(csr, token, "").await
    }

    pub async fn x509_as(&mut self, csr: Vec<u8>, token: String, spiffe_id: &str) -> v1::X509Response {
        let request = v1::X509Request { id: 7, csr, spiffe_id: spiffe_id.to_owned(), token };
        self.send(session_request::Kind::X509(request)).await;
        match self.next().await {
            session_response::Kind::X509(response) => response,
            other => panic!("not a certificate: {other:?}"),
        }
    }

    pub async fn jwt(&mut self, audiences: &[&str], token: String) -> v1::JwtResponse {
        let audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
        self.send(session_request::Kind::Jwt(v1::JwtRequest { id: 8, audiences, spiffe_id: String::new(), token }))
            .await;
        match self.next().await {
            session_response::Kind::Jwt(response) => response,
            other => panic!("not a token: {other:?}"),
        }
    }

    /// The next message, if the stream goes on.
    ///
    /// # Errors
    /// With what the issuer ended it.
    pub async fn message(&mut self) -> Result<session_response::Kind, Status> {
        let message = self.responses.message().await?.expect("a stream ends with a status");
        Ok(message.kind.expect("a kind"))
    }

    /// Reads to the end, which must be an error.
    pub async fn end(mut self) -> Status {
        loop {
            match self.responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a status"),
                Err(status) => return status,
            }
        }
    }
}

pub fn refused(refusal: Option<v1::Refusal>) -> (Code, String) {
    let refusal = refusal.expect("refused");
    (Code::from_i32(refusal.code), refusal.message)
}
