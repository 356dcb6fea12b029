//! Honest sessions, alone and among a thousand hostile peers: silent ones, slow ones, ones that send garbage, ones that
//! stop after a complete handshake, and ones with an invalid token. The hostile peers are a separate process at their own
//! address, except the last kind, which shares the address of the honest sessions; rejected peers reconnect.

use std::{
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use countersign_agent::upstream::Upstream;
use countersign_proto::issuer::v1::{Hello, SessionRequest, session_request::Kind as Request};
use futures::{StreamExt as _, stream};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::MissedTickBehavior,
};
use tokio_rustls::TlsConnector;

use crate::{
    cluster::Cluster,
    figures::{Figures, Samples},
    streams::{ControlPlane, OpenStream},
    tokens::Proven,
};

/// Concurrent hostile peers.
const PEERS: usize = 1_000;
/// The address of the hostile peers. Connection limits and handshake scheduling apply per address.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 66, 66));
/// The delay before a rejected peer reconnects.
const PAUSE: Duration = Duration::from_secs(1);
/// The delay between two bytes of a slow peer.
const SLOW: Duration = Duration::from_secs(1);

/// Honest sessions that are timed, first alone and then among hostile peers.
const HONEST: usize = 500;
/// The interval between honest sessions: all of them together take longer than any round of a peer, so that synchronized
/// peers are included in the measurement.
const PACE: Duration = Duration::from_millis(40);

/// Prints how long an honest session takes to its first state on a new connection, before and during the attack.
pub(crate) async fn measure(
    control_plane: &ControlPlane,
    issuer: SocketAddr,
    pods: &[Proven],
    private: &Path,
    figures: &Figures,
) -> Result<()> {
    let mut undisturbed = honest(control_plane, issuer, pods, private).await?;
    let _attackers = Attackers::start(issuer).await?;
    let mut among = honest(control_plane, issuer, pods, private).await?;
    for (name, share) in [("p50", 0.50), ("p99", 0.99)] {
        figures.print(&format!("honest session, undisturbed, {name}"), undisturbed.millis(share), "ms");
        let during = format!("honest session among {PEERS} hostile connections, {name}");
        figures.print(&during, among.millis(share), "ms");
    }
    Ok(())
}

/// Runs honest sessions one after the other; a failed one ends the run.
async fn honest(control_plane: &ControlPlane, issuer: SocketAddr, pods: &[Proven], private: &Path) -> Result<Samples> {
    let mut spans = Vec::new();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for pod in pods.iter().cycle().take(HONEST) {
        pace.tick().await;
        let begun = Instant::now();
        OpenStream::open(control_plane, issuer, pod.clone(), private).await.context("an honest session")?;
        spans.push(begun.elapsed());
    }
    let mut samples = Samples::default();
    samples.extend(spans);
    Ok(samples)
}

/// The process of the hostile peers, killed on drop.
struct Attackers(Child);

impl Attackers {
    /// Returns once all peers are connected.
    async fn start(issuer: SocketAddr) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--hostile", &issuer.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the hostile peers")?;
        let mut said = BufReader::new(child.stdout.take().context("the hostile peers have an output")?);
        let attackers = Self(child);
        tokio::task::spawn_blocking(move || said.read_line(&mut String::new())).await??;
        Ok(attackers)
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The behaviour of a hostile peer.
#[derive(Clone, Copy)]
enum Way {
    Silent,
    Slow,
    Garbage,
    TlsThenSilent,
    BadToken,
}

const WAYS: [Way; 5] = [Way::Silent, Way::Slow, Way::Garbage, Way::TlsThenSilent, Way::BadToken];

/// The process of the hostile peers: prints a line once all have connected, and runs until it is killed.
pub(crate) async fn attack(issuer: SocketAddr) -> Result<()> {
    let control_plane = ControlPlane::read(&Cluster::connect().await?).await?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(control_plane.roots.clone());
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    // An agent stores pushed roots; these peers get none.
    let nowhere = tempfile::tempdir()?;
    let upstream = Arc::new(control_plane.upstream(issuer, nowhere.path()));
    let tls = TlsConnector::from(Arc::new(config));
    let peer = Peer { issuer, name: control_plane.name, upstream, tls, connected: Arc::default() };
    for way in WAYS.into_iter().cycle().take(PEERS) {
        let peer = peer.clone();
        tokio::spawn(async move {
            loop {
                // Any result is expected: evicted, or not accepted.
                let _ = peer.annoy(way).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    while peer.connected.load(Ordering::Relaxed) < PEERS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("connected");
    std::future::pending().await
}

#[derive(Clone)]
struct Peer {
    issuer: SocketAddr,
    name: ServerName<'static>,
    /// The connection settings of honest sessions.
    upstream: Arc<Upstream>,
    tls: TlsConnector,
    connected: Arc<AtomicUsize>,
}

impl Peer {
    /// Connects, and stays until it is evicted.
    async fn annoy(&self, way: Way) -> Result<()> {
        if let Way::BadToken = way {
            return self.lie().await;
        }
        let mut answer = [0; 4096];
        let mut tcp = self.dial().await?;
        match way {
            Way::Silent => self.count(),
            Way::Slow => {
                self.count();
                // The beginning of a TLS record that announces more bytes than ever arrive.
                for byte in [22, 3, 1, 1, 0].into_iter().chain(std::iter::repeat(1)) {
                    tcp.write_all(&[byte]).await?;
                    tokio::time::sleep(SLOW).await;
                }
            }
            Way::Garbage => {
                self.count();
                tcp.write_all(&[0x5a; 1024]).await?;
            }
            Way::TlsThenSilent => {
                let mut tls = self.tls.connect(self.name.clone(), tcp).await?;
                self.count();
                while tls.read(&mut answer).await? > 0 {}
                return Ok(());
            }
            Way::BadToken => {}
        }
        while tcp.read(&mut answer).await? > 0 {}
        Ok(())
    }

    /// Opens a session with an invalid token, and reads the answer.
    async fn lie(&self) -> Result<()> {
        let mut client = self.upstream.client().await?;
        self.count();
        let hello = Hello { version: "load".to_owned(), token: "no.token.atall".to_owned(), ..Hello::default() };
        let hello = SessionRequest { kind: Some(Request::Hello(hello)) };
        let requests = stream::once(std::future::ready(hello)).chain(stream::pending());
        let mut responses = client.session(requests).await?.into_inner();
        while responses.message().await?.is_some() {}
        Ok(())
    }

    async fn dial(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((FROM, 0).into())?;
        Ok(socket.connect(self.issuer).await?)
    }

    fn count(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }
}
