//! Both ports on sockets, with clients of rustls.

use std::{collections::BTreeMap, net::SocketAddr};

use countersign_core::{
    bundle::{Bundle, BundleSet},
    x509::verify_x509_svid,
};
use countersign_runtime::readiness::Readiness;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    host_names::HostNames,
    publication::{Entry, Publication},
    set_reader::{SetReader, follow},
    test_set::TestDomain,
    web_certificates::{Pair, WebCertificates},
};

/// Long enough for a machine that is busy; no test waits for it to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both servers of two trust domains, of which the first is the default.
struct Servers {
    spiffe: SocketAddr,
    web: SocketAddr,
    published: Arc<Published>,
    metrics: Metrics,
    domains: [TestDomain; 2],
    /// Of the web certificates.
    roots: RootCertStore,
}

impl Servers {
    async fn start(issuers: [Option<&str>; 2]) -> Self {
        Self::start_within(issuers, LIMITS).await
    }

    async fn start_within(issuers: [Option<&str>; 2], limits: HttpLimits) -> Self {
        let now = Timestamp::now();
        let domains = ["a.example", "b.example"].map(|name| TestDomain::new(name, now));
        let published = Arc::new(Published::default());
        published.publish(publication(&domains, issuers));
        let metrics = Metrics::new();
        let served = Served::new(Arc::clone(&published), &metrics);
        let (certificates, roots) = web_certificates();
        let [(spiffe, spiffe_address), (web, web_address)] = [listener().await, listener().await];
        let connections = [Profile::Spiffe, Profile::Web].map(|profile| metrics.connections(profile));
        let [of_spiffe, of_web] = connections;
        tokio::spawn(served.clone().serve_spiffe(spiffe, limits, of_spiffe, CancellationToken::new()));
        tokio::spawn(served.serve_web(web, certificates, limits, of_web, CancellationToken::new()));
        Self { spiffe: spiffe_address, web: web_address, published, metrics, domains, roots }
    }

    /// A client that accepts SVIDs of these trust domains.
    fn spiffe_client(&self, trusted: &[&TestDomain]) -> ClientConfig {
        let bundles = BundleSet::new(trusted.iter().map(|domain| domain.bundle())).unwrap();
        let verifier = Arc::new(SvidVerifier(bundles));
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let client = client.with_protocol_versions(&[&TLS12, &TLS13]).unwrap();
        client.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    }

    fn web_client(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let client = client.with_protocol_versions(versions).unwrap();
        client.with_root_certificates(self.roots.clone()).with_no_client_auth()
    }

    /// The response to GET over the web for a host.
    async fn web_get(&self, host: &str, path: &str) -> Response {
        let mut stream = connect(self.web, "a.example", self.web_client(&[&TLS13])).await.unwrap();
        request(&mut stream, "GET", host, path, "").await
    }

    /// The response over https_spiffe, from a server of the first trust domain.
    async fn spiffe_request(&self, method: &str, path: &str, fields: &str) -> Response {
        let client = self.spiffe_client(&[&self.domains[0]]);
        let mut stream = connect(self.spiffe, "a.example", client).await.unwrap();
        request(&mut stream, method, "a.example", path, fields).await
    }
}

fn publication(domains: &[TestDomain], issuers: [Option<&str>; 2]) -> Publication {
    Publication::build(&files(domains, issuers), &hosts(), Timestamp::now()).unwrap()
}

fn files(domains: &[TestDomain], issuers: [Option<&str>; 2]) -> Vec<Entry> {
    let directories = ["", "2/"].into_iter().zip(domains).zip(issuers);
    directories.flat_map(|((directory, domain), issuer)| domain.files(directory, issuer, Timestamp::now())).collect()
}

fn hosts() -> HostNames {
    HostNames::new(["west.example=b.example".parse().unwrap()]).unwrap()
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// One for `a.example`, one for `b.example` and `*.b.example`.
fn web_certificates() -> (Arc<ServedWebCertificates>, RootCertStore) {
    let (mut pairs, mut roots) = (BTreeMap::new(), RootCertStore::empty());
    for (directory, names) in [("1", vec!["a.example"]), ("2", vec!["b.example", "*.b.example"])] {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        roots.add(made.cert.der().clone()).unwrap();
        let pair =
            Pair { chain: made.cert.pem().into_bytes(), key: made.signing_key.serialize_pem().into_bytes().into() };
        pairs.insert(directory.to_owned(), pair);
    }
    let served = ServedWebCertificates::default();
    served.publish(WebCertificates::build(&pairs, &WebCertificates::default()).0);
    (Arc::new(served), roots)
}

/// As SPIFFE Federation, section 5.2.2, says: the chain is an SVID of a bundle that the client has; names do not matter.
#[derive(Debug)]
struct SvidVerifier(BundleSet);

impl ServerCertVerifier for SvidVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<&[u8]> = std::iter::once(leaf).chain(rest).map(AsRef::as_ref).collect();
        match verify_x509_svid(&chain, &self.0, Timestamp::now()) {
            Ok(id) if id.path() == "/countersign/endpoint" => Ok(ServerCertVerified::assertion()),
            _ => Err(rustls::Error::General("not an endpoint of a trusted domain".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn connect(address: SocketAddr, name: &str, client: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await
}

#[derive(Debug)]
struct Response {
    status: u16,
    fields: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Over HTTP/1.1; the connection can be used again.
async fn request(stream: &mut TlsStream<TcpStream>, method: &str, host: &str, path: &str, fields: &str) -> Response {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = fields.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; if method == "HEAD" || status == 304 { 0 } else { length }];
    stream.read_exact(&mut body).await.unwrap();
    Response { status, fields, body }
}

#[tokio::test]
async fn by_spiffe_each_trust_domain_is_served_with_its_own_svid() {
    let servers = Servers::start([None, None]).await;
    let [a, b] = &servers.domains;
    for (name, trusted, host, expected) in [
        ("a.example", a, "a.example", a),
        ("b.example", b, "b.example", b),
        ("west.example", b, "west.example:8443", b),
        ("unknown.example", a, "unknown.example", a),
        ("127.0.0.1", a, "127.0.0.1:8443", a),
    ] {
        let mut stream = connect(servers.spiffe, name, servers.spiffe_client(&[trusted])).await.unwrap();
        let response = request(&mut stream, "GET", host, "/", "").await;
        assert_eq!((response.status, &response.body), (200, &expected.document()), "{name}");
        let bundle = Bundle::parse(&expected.name, &response.body).unwrap();
        assert_eq!(bundle, expected.bundle());
    }
    assert!(connect(servers.spiffe, "a.example", servers.spiffe_client(&[b])).await.is_err());
    let response = servers.spiffe_request("GET", "/b.example", "").await;
    assert_eq!((response.status, response.body), (200, b.document()));
    assert_eq!(servers.spiffe_request("GET", "/c.example", "").await.status, 404);
}

#[tokio::test]
async fn by_the_web_certificates_are_chosen_by_name_and_bundles_are_the_same() {
    let servers = Servers::start([None, None]).await;
    let [a, b] = &servers.domains;
    for (name, host, path, expected) in [
        ("a.example", "a.example", "/", a),
        ("b.example", "b.example", "/", b),
        ("x.b.example", "x.b.example", "/a.example", a),
    ] {
        let mut stream = connect(servers.web, name, servers.web_client(&[&TLS13])).await.unwrap();
        let response = request(&mut stream, "GET", host, path, "").await;
        assert_eq!((response.status, &response.body), (200, &expected.document()), "{name}");
    }
    // The default is for another name, which the client notices.
    assert!(connect(servers.web, "c.example", servers.web_client(&[&TLS13])).await.is_err());
    let response = servers.web_get("c.example", "/").await;
    assert_eq!(response.status, 404);
    assert!(String::from_utf8(response.body).unwrap().contains("--host"));
    assert_eq!(servers.web_get("a.example", "/c.example").await.status, 404);
}

#[tokio::test]
async fn tls_1_2_is_for_the_web_alone_and_sessions_are_not_resumed() {
    let servers = Servers::start([None, None]).await;
    let client = servers.web_client(&[&TLS12]);
    let mut stream = connect(servers.web, "a.example", client).await.unwrap();
    assert_eq!(request(&mut stream, "GET", "a.example", "/", "").await.status, 200);
    let mut client = servers.spiffe_client(&[&servers.domains[0]]);
    let provider = aws_lc_rs::default_provider();
    let only_1_2 = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS12]).unwrap();
    let verifier = Arc::new(SvidVerifier(BundleSet::new([servers.domains[0].bundle()]).unwrap()));
    let only_1_2 = only_1_2.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    assert!(connect(servers.spiffe, "a.example", only_1_2).await.is_err());
    client.resumption = rustls::client::Resumption::in_memory_sessions(8);
    for (address, client) in [
        (servers.spiffe, client),
        (servers.web, servers.web_client(&[&TLS13])),
        (servers.web, servers.web_client(&[&TLS12])),
    ] {
        for _ in 0..2 {
            let mut stream = connect(address, "a.example", client.clone()).await.unwrap();
            assert_eq!(request(&mut stream, "GET", "a.example", "/", "").await.status, 200);
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }
}

#[tokio::test]
async fn a_document_has_a_strong_tag_by_which_it_is_not_sent_twice() {
    let servers = Servers::start([None, None]).await;
    let first = servers.spiffe_request("GET", "/", "").await;
    let field = |response: &Response, name: &str| response.fields.get(name).cloned();
    assert_eq!(field(&first, "content-type").as_deref(), Some("application/json"));
    assert_eq!(field(&first, "cache-control").as_deref(), Some("max-age=17"));
    assert_eq!(field(&first, "x-content-type-options").as_deref(), Some("nosniff"));
    let etag = field(&first, "etag").unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 40, "{etag}");
    for method in ["GET", "HEAD"] {
        let again = servers.spiffe_request(method, "/", &format!("if-none-match: \"x\", {etag}\r\n")).await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        assert_eq!(field(&again, "etag"), Some(etag.clone()));
        assert_eq!(field(&again, "cache-control").as_deref(), Some("max-age=17"));
    }
    let other = servers.spiffe_request("GET", "/", "if-none-match: \"x\"\r\n").await;
    assert_eq!((other.status, other.body), (200, first.body.clone()));
    let head = servers.spiffe_request("HEAD", "/", "").await;
    assert_eq!((head.status, field(&head, "content-length")), (200, Some(first.body.len().to_string())));
    assert_eq!(field(&head, "etag"), Some(etag));
}

#[tokio::test]
async fn other_methods_are_refused_without_their_body_being_read() {
    let servers = Servers::start([None, None]).await;
    // Nothing of the body is ever sent.
    let response = servers.spiffe_request("POST", "/", "content-length: 1000000\r\n").await;
    assert_eq!((response.status, response.fields.get("allow").map(String::as_str)), (405, Some("GET, HEAD")));
    assert_eq!(response.fields.get("cache-control").map(String::as_str), Some("no-store"));
    let long = format!("/{}", "a".repeat(5000));
    assert_eq!(servers.spiffe_request("GET", &long, "").await.status, 414);
    let text = servers.metrics.text().unwrap();
    let counted = r#"countersign_endpoint_requests_total{profile="https_spiffe",route="none",status="4xx"} 2"#;
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn http_2_is_answered_alike() {
    let servers = Servers::start([None, None]).await;
    let mut client = servers.web_client(&[&TLS13]);
    client.alpn_protocols = vec![b"h2".to_vec()];
    let stream = connect(servers.web, "b.example", client).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let document = servers.domains[1].document();
    for (method, uri, status, length) in [
        ("GET", "https://b.example:8443/", 200, Some(document.len())),
        ("HEAD", "https://b.example/", 200, Some(0)),
        ("GET", "https://b.example/c.example", 404, None),
        ("POST", "https://b.example/", 405, None),
    ] {
        let request =
            hyper::Request::builder().method(method).uri(uri).body(Empty::<axum::body::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{method} {uri}");
        if status == 200 {
            assert_eq!(response.headers()["content-length"], document.len().to_string());
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(length.is_none_or(|length| body.len() == length), "{method} {uri}");
    }
}

#[tokio::test]
async fn the_documents_of_an_issuer_hold_the_keys_of_its_tokens_and_no_others() {
    let servers = Servers::start([Some("https://a.example/x"), None]).await;
    let configuration = servers.web_get("a.example:443", "/x/.well-known/openid-configuration").await;
    assert_eq!(configuration.fields.get("cache-control").map(String::as_str), Some("max-age=17"));
    let configuration = configuration.json();
    assert_eq!(configuration["issuer"], "https://a.example/x");
    assert_eq!(configuration["jwks_uri"], "https://a.example/x/keys");
    let keys = servers.web_get("a.example", "/x/keys").await;
    assert_eq!(keys.fields.get("content-type").map(String::as_str), Some("application/json"));
    let keys = keys.json();
    let keys = keys["keys"].as_array().unwrap();
    // The bundle also has an X.509 authority, a WIT authority, which no relying party of OIDC may take for one of tokens, and a later key.
    assert_eq!(keys.len(), 1);
    let expected = (json!(servers.domains[0].jwt.kid()), json!("sig"), json!("ES256"));
    assert_eq!((keys[0]["kid"].clone(), keys[0]["use"].clone(), keys[0]["alg"].clone()), expected);
    for (host, path) in [
        ("b.example", "/x/keys"),
        ("a.example", "/keys"),
        ("a.example", "/.well-known/openid-configuration"),
        ("a.example", "/x/.well-known/openid-configuration/"),
        ("a.example", "/x/"),
    ] {
        assert_eq!(servers.web_get(host, path).await.status, 404, "{host}{path}");
    }
    for path in ["/x/keys", "/x/.well-known/openid-configuration"] {
        assert_eq!(servers.spiffe_request("GET", path, "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn one_issuer_of_two_trust_domains_is_served_for_neither() {
    let servers = Servers::start([Some("https://a.example"), Some("https://a.example/")]).await;
    for path in ["/keys", "/.well-known/openid-configuration"] {
        let response = servers.web_get("a.example", path).await;
        assert_eq!(response.status, 503);
        assert_eq!(response.fields.get("cache-control").map(String::as_str), Some("no-store"));
        assert!(String::from_utf8(response.body).unwrap().contains("several trust domains"));
    }
    assert_eq!(servers.web_get("a.example", "/").await.status, 200);
    servers.metrics.set().published(&servers.published.current().unwrap(), Timestamp::now());
    let text = servers.metrics.text().unwrap();
    assert!(text.contains("countersign_endpoint_trust_domains_with_contradictory_issuer 2"), "{text}");
}

#[tokio::test]
async fn what_replaces_a_set_is_served_on_open_connections_and_a_broken_one_changes_nothing() {
    let servers = Servers::start([None, None]).await;
    let (folder, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
    let readiness = Readiness::default();
    let ready = readiness.check("no set");
    let reader = SetReader::new(folder.path(), hosts());
    tokio::spawn(follow(reader, Arc::clone(&servers.published), metrics.set(), ready.clone()));
    let client = servers.spiffe_client(&[&servers.domains[0]]);
    let mut open = connect(servers.spiffe, "a.example", client).await.unwrap();
    let first = request(&mut open, "GET", "a.example", "/", "").await;
    assert_eq!((first.body, ready.is_passing()), (servers.domains[0].document(), false));

    let now = Timestamp::now();
    let next = ["a.example", "b.example"].map(|name| TestDomain::new(name, now));
    write_set(folder.path(), "1", &files(&next, [None, None]));
    eventually("the next set is published", || ready.is_passing()).await;
    let second = request(&mut open, "GET", "a.example", "/", "").await;
    assert_eq!((second.status, second.body), (200, next[0].document()));
    assert!(connect(servers.spiffe, "a.example", servers.spiffe_client(&[&servers.domains[0]])).await.is_err());
    connect(servers.spiffe, "a.example", servers.spiffe_client(&[&next[0]])).await.unwrap();

    let unreadable = || {
        let text = metrics.text().unwrap();
        let line = text.lines().find(|line| line.starts_with("countersign_endpoint_sets_unreadable_total"));
        line.unwrap().to_owned()
    };
    let before = unreadable();
    let mut broken = files(&servers.domains, [None, None]);
    broken.last_mut().unwrap().content = b"{".to_vec().into();
    write_set(folder.path(), "2", &broken);
    eventually("the broken set is reported", || unreadable() != before).await;
    let third = request(&mut open, "GET", "a.example", "/", "").await;
    assert_eq!((third.status, third.body), (200, next[0].document()));
    connect(servers.spiffe, "b.example", servers.spiffe_client(&[&next[1]])).await.unwrap();
}

#[tokio::test]
async fn who_is_silent_or_asks_nothing_is_not_waited_for() {
    let limits = HttpLimits {
        connections: ConnectionLimits { handshake_time: Duration::from_millis(50), ..LIMITS.connections },
        idle: Duration::from_millis(50),
        ..LIMITS
    };
    let servers = Servers::start_within([None, None], limits).await;
    for address in [servers.spiffe, servers.web] {
        let mut silent = TcpStream::connect(address).await.unwrap();
        let read = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 1])).await.unwrap();
        assert_eq!(read.unwrap_or(0), 0);
    }
    let mut idle = connect(servers.web, "a.example", servers.web_client(&[&TLS13])).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a.exa").await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, idle.read_to_end(&mut rest)).await.expect("the connection is closed");
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[tokio::test]
async fn before_the_first_set_there_is_no_certificate_and_no_document() {
    let metrics = Metrics::new();
    let served = Served::new(Arc::default(), &metrics);
    let request = Request::get("/").header(HOST, "a.example").body(Body::empty()).unwrap();
    assert_eq!(served.respond(Profile::Web, &request).status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(served.published.current().is_none());
}

/// Writes a set and makes it the current one, as the agent does.
fn write_set(directory: &std::path::Path, set: &str, entries: &[Entry]) {
    for entry in entries {
        let path = directory.join(set).join(&entry.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &entry.content).unwrap();
    }
    let next = directory.join(".credentials.next");
    std::os::unix::fs::symlink(set, &next).unwrap();
    std::fs::rename(next, directory.join("credentials")).unwrap();
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        while !condition() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("timeout: {what}"));
}
