//! Which addresses are called, whatever DNS and URLs say.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_core::federation::FetchError;
use countersign_federation::{AddressPolicy, Fetcher, Limits, Resolve, Resolving};

use crate::peer::{Domain, ENDPOINT_ID, PEER, fetch, fetcher, spiffe, target};
use crate::server::{Server, serving};

/// Knows one list of addresses for each time that it is asked; after the last, none.
struct Names {
    answers: Vec<Vec<IpAddr>>,
    asked: Arc<AtomicUsize>,
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        assert_eq!(host, "bundles.peer.example");
        let answer = self.answers.get(self.asked.fetch_add(1, Ordering::SeqCst));
        let answer = answer.cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        Box::pin(std::future::ready(answer))
    }
}

/// One for which the name has these addresses, each list once.
fn resolving(fetcher: Fetcher, answers: &[&[&str]]) -> (Fetcher, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let parse = |list: &&[&str]| list.iter().map(|address| address.parse().unwrap()).collect();
    let names = Names { answers: answers.iter().map(parse).collect(), asked: asked.clone() };
    (fetcher.with_resolver(names), asked)
}

/// What comes of an endpoint on 127.0.0.1 under this host, and how often it was called.
async fn called(fetcher: &Fetcher, host: &str) -> (Result<Vec<u8>, FetchError>, usize) {
    let domain = Domain::new(PEER);
    let server = Server::start(domain.svid(ENDPOINT_ID), serving("document")).await;
    let target = target(&server.url_of(host, "/"), spiffe(ENDPOINT_ID), Some(domain.bundle()));
    let result = fetch(fetcher, target, None).await.map(|fetched| fetched.document);
    (result, server.accepted())
}

/// One that calls public addresses only.
fn strict() -> Fetcher {
    Fetcher::new(AddressPolicy::default())
}

#[tokio::test]
async fn addresses_that_are_not_public_are_not_called() {
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0.0.0.0",
        "localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ] {
        assert_eq!(called(&strict(), host).await, (Err(FetchError::AddressRefused), 0), "{host}");
    }
}

#[tokio::test]
async fn an_allowed_network_is_called_however_the_address_is_written() {
    for host in ["127.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]"] {
        assert_eq!(called(&fetcher(), host).await, (Ok(b"document".to_vec()), 1), "{host}");
    }
}

#[tokio::test]
async fn a_name_with_refused_addresses_only_is_not_called() {
    let lists: [&[&str]; 4] = [&["127.0.0.1"], &["10.0.0.1", "127.0.0.1"], &["::ffff:127.0.0.1"], &["169.254.169.254"]];
    for list in lists {
        let (fetcher, _) = resolving(strict(), &[list]);
        assert_eq!(called(&fetcher, "bundles.peer.example").await, (Err(FetchError::AddressRefused), 0), "{list:?}");
    }
}

#[tokio::test]
async fn of_a_name_only_the_allowed_addresses_are_called() {
    // If 127.0.0.1 were called, it would answer.
    let policy = AddressPolicy::allowing(["127.0.0.2/32".parse().unwrap()]);
    let (fetcher, _) = resolving(Fetcher::new(policy), &[&["127.0.0.1", "127.0.0.2"]]);
    assert_eq!(called(&fetcher, "bundles.peer.example").await, (Err(FetchError::Connect), 0));
    let (fetcher, _) = resolving(crate::peer::fetcher(), &[&["10.0.0.1", "127.0.0.1"]]);
    assert_eq!(called(&fetcher, "bundles.peer.example").await, (Ok(b"document".to_vec()), 1));
}

#[tokio::test]
async fn the_next_address_is_called_if_the_first_does_not_answer() {
    let (fetcher, _) = resolving(fetcher(), &[&["127.0.0.2", "127.0.0.1"]]);
    assert_eq!(called(&fetcher, "bundles.peer.example").await, (Ok(b"document".to_vec()), 1));
}

#[tokio::test]
async fn a_name_is_resolved_once_for_a_connection() {
    let (fetcher, asked) = resolving(fetcher(), &[&["127.0.0.1"], &["10.0.0.1"]]);
    assert_eq!(called(&fetcher, "bundles.peer.example").await, (Ok(b"document".to_vec()), 1));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // The next fetch asks again.
    assert_eq!(called(&fetcher, "bundles.peer.example").await, (Err(FetchError::AddressRefused), 0));
}

#[tokio::test]
async fn a_name_without_addresses_is_not_resolved() {
    let lists: [&[&[&str]]; 2] = [&[], &[&[]]];
    for answers in lists {
        let (fetcher, _) = resolving(fetcher(), answers);
        assert_eq!(called(&fetcher, "bundles.peer.example").await, (Err(FetchError::Resolve), 0));
    }
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_no_connection() {
    let domain = Domain::new(PEER);
    let server = Server::start(domain.svid(ENDPOINT_ID), serving("document")).await;
    let url = server.url("/");
    // Nobody listens on another address of the same port.
    let url = url.replace("127.0.0.1", "127.0.0.3");
    let target = target(&url, spiffe(ENDPOINT_ID), Some(domain.bundle()));
    assert_eq!(fetch(&fetcher(), target, None).await, Err(FetchError::Connect));
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_given_up_before_the_deadline() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    // Once the backlog is full, the kernel drops what begins another connection.
    let mut waiting = Vec::new();
    let limit = Duration::from_millis(200);
    while let Ok(stream) = tokio::time::timeout(limit, tokio::net::TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let fetcher = fetcher().with_limits(Limits { total: Duration::from_secs(30), connect: limit });
    let bundle = Domain::new(PEER).bundle();
    let target = target(&format!("https://{address}/"), spiffe(ENDPOINT_ID), Some(bundle));
    assert_eq!(fetch(&fetcher, target, None).await, Err(FetchError::Connect));
}

/// Never answers.
struct Silent;

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_never_resolved_is_not_awaited() {
    let fetcher = strict().with_resolver(Silent);
    let target = target("https://bundles.peer.example/", spiffe(ENDPOINT_ID), Some(Domain::new(PEER).bundle()));
    let began = tokio::time::Instant::now();
    assert_eq!(fetch(&fetcher, target, None).await, Err(FetchError::Timeout));
    let limits = Limits { total: Duration::from_secs(10), connect: Duration::from_secs(3) };
    assert_eq!(Limits::default(), limits);
    assert!(began.elapsed() >= limits.total && began.elapsed() < limits.total + Duration::from_secs(1));
}
