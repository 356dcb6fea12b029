//! Servers on loopback that do what a test tells them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::peer::Identity;

pub(crate) type Stream = TlsStream<TcpStream>;
/// What a server does with a connection once the head of a request is there.
pub(crate) type Script = Arc<dyn Fn(String, Stream) -> BoxFuture<'static, ()> + Send + Sync>;

/// Ends with this.
pub(crate) struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl Server {
    pub(crate) async fn start(identity: Identity, script: Script) -> Self {
        Self::start_with(config(identity, rustls::ALL_VERSIONS), script).await
    }

    pub(crate) async fn start_with(config: ServerConfig, script: Script) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let asked = requests.clone();
        Self::listen(requests, move |stream| {
            let (acceptor, script, asked) = (acceptor.clone(), script.clone(), asked.clone());
            Box::pin(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let Some(head) = read_head(&mut stream).await else { return };
                asked.lock().unwrap().push(head.clone());
                script(head, stream).await;
            })
        })
        .await
    }

    /// One that need not speak TLS.
    pub(crate) async fn start_tcp(script: impl Fn(TcpStream) -> BoxFuture<'static, ()> + Send + 'static) -> Self {
        Self::listen(Arc::default(), script).await
    }

    async fn listen(
        requests: Arc<Mutex<Vec<String>>>,
        script: impl Fn(TcpStream) -> BoxFuture<'static, ()> + Send + 'static,
    ) -> Self {
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = accepted.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(script(stream));
            }
        });
        Self { address, accepted, requests, _serving: serving }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// At this server, by another name of its address.
    pub(crate) fn url_of(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.port())
    }

    /// At this server.
    pub(crate) fn url(&self, path: &str) -> String {
        self.url_of("127.0.0.1", path)
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The heads of the requests.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// With a small send buffer, so that little is under way when the client stops reading.
fn listener() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(64 * 1024).unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).unwrap();
    socket.listen(64).unwrap()
}

/// Shows the chain whether or not the key is that of the leaf.
pub(crate) fn config(identity: Identity, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let key = any_supported_type(&identity.key).unwrap();
    let shown = Shown(Arc::new(CertifiedKey::new(identity.chain, key)));
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown))
}

async fn read_head(stream: &mut Stream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Runs this with the connection.
pub(crate) fn script<F>(run: impl Fn(Stream) -> F + Send + Sync + 'static) -> Script
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |_, stream| Box::pin(run(stream)))
}

/// Answers with what `answer` makes of the path, and closes the connection.
pub(crate) fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Script {
    Arc::new(move |head, mut stream| {
        let answer = answer(head.split(' ').nth(1).unwrap());
        Box::pin(async move {
            // The client may have closed the connection.
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        })
    })
}

/// Answers 200 with this document.
pub(crate) fn serving(document: impl Into<Vec<u8>>) -> Script {
    let answer = ok(&document.into());
    answering(move |_| answer.clone())
}

pub(crate) fn ok(document: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", document.len());
    [head.as_bytes(), document].concat()
}

pub(crate) fn redirect(status: u16, to: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}
