//! What the peers of an HTTP server may use. Each limit is tested on one connection in memory, and eviction on sockets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Bytes,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{HttpLimits, connection, serve_http};
use crate::connections::{ConnectionLimiter, ConnectionLimits, ConnectionMetrics, Peer, ReadRate};

const LIMITS: HttpLimits = HttpLimits {
    connections: ConnectionLimits {
        handshakes: 1,
        handshake_time: Duration::ZERO,
        waiting_per_address: 1,
        waiting: 8,
        per_address: 8,
        total: 8,
    },
    idle: Duration::from_secs(20),
    read_rate: ReadRate { bytes_per_second: 1000, burst: 1000 },
    streams: 7,
    shutdown: Duration::from_secs(6),
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";

/// The handler of `/slow` responds once `done` is notified.
struct Slow {
    router: Router,
    arrived: Arc<Notify>,
    done: Arc<Notify>,
}

fn slow() -> Slow {
    let (arrived, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (arrived.clone(), done.clone());
    let handler = move |Extension(peer): Extension<Peer>| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            let guard = peer.guard_from_eviction();
            tell.notify_one();
            wait.notified().await;
            drop(guard);
            "slow"
        }
    };
    let router = Router::new()
        .route("/", get(|| async { "ok" }))
        .route("/size", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/slow", get(handler));
    Slow { router, arrived, done }
}

/// The client's side of a connection that is served.
fn connect(router: Router, shutdown: CancellationToken) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let limiter = ConnectionLimiter::new(LIMITS.connections, ConnectionMetrics::default());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let peer = Peer::new(address, limiter.try_admit(address.ip()).unwrap());
    (client, tokio::spawn(connection::serve(server, peer, router, LIMITS, shutdown)))
}

/// Reads until the text of the response has arrived.
async fn response(client: &mut (impl tokio::io::AsyncRead + Unpin), text: &str) {
    let mut read = Vec::new();
    while !read.ends_with(text.as_bytes()) {
        assert_ne!(client.read_buf(&mut read).await.unwrap(), 0, "closed after {}", String::from_utf8_lossy(&read));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed_whatever_part_of_a_head_it_has_sent() {
    for beginning in [&b""[..], b"PRI", b"GET / HTTP/1.1\r\nhost", GET] {
        let begin = Instant::now();
        let (mut client, end) = connect(slow().router, CancellationToken::new());
        client.write_all(beginning).await.unwrap();
        end.await.unwrap();
        let took = begin.elapsed();
        assert!((LIMITS.idle..=LIMITS.idle + Duration::from_secs(1)).contains(&took), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_used_stays() {
    let Slow { router, arrived, done } = slow();
    let (mut client, end) = connect(router, CancellationToken::new());
    for _ in 0..3 {
        tokio::time::advance(LIMITS.idle - Duration::from_secs(1)).await;
        client.write_all(GET).await.unwrap();
        response(&mut client, "ok").await;
    }
    client.write_all(SLOW).await.unwrap();
    arrived.notified().await;
    tokio::time::advance(LIMITS.idle * 2).await;
    done.notify_one();
    response(&mut client, "slow").await;
    assert!(!end.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_read_at_a_bounded_rate() {
    let begin = Instant::now();
    let (mut client, _end) = connect(slow().router, CancellationToken::new());
    client.write_all(b"POST /size HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\n\r\n").await.unwrap();
    client.write_all(&[b' '; 20_000]).await.unwrap();
    response(&mut client, "20000").await;
    assert!(begin.elapsed() >= Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// RFC 9113, section 6.5.2: SETTINGS_MAX_CONCURRENT_STREAMS is 3.
#[tokio::test(start_paused = true)]
async fn an_http2_connection_has_few_streams_at_a_time() {
    let (mut client, _end) = connect(slow().router, CancellationToken::new());
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    client.read_exact(&mut head).await.unwrap();
    let mut settings = vec![0; usize::from(head[2])];
    client.read_exact(&mut settings).await.unwrap();
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).map(|setting| setting[2..].to_vec());
    assert_eq!(streams, Some(LIMITS.streams.to_be_bytes().to_vec()));
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_a_request_in_flight_is_answered_and_an_idle_connection_closed() {
    let (Slow { router, arrived, done }, shutdown) = (slow(), CancellationToken::new());
    let (mut idle, idle_end) = connect(router.clone(), shutdown.clone());
    idle.write_all(GET).await.unwrap();
    response(&mut idle, "ok").await;
    let (mut client, end) = connect(router, shutdown.clone());
    client.write_all(SLOW).await.unwrap();
    arrived.notified().await;
    shutdown.cancel();
    let begin = Instant::now();
    idle_end.await.unwrap();
    assert_eq!(begin.elapsed(), Duration::ZERO);
    done.notify_one();
    response(&mut client, "slow").await;
    end.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_only_so_long() {
    let (Slow { router, arrived, .. }, shutdown) = (slow(), CancellationToken::new());
    let (mut client, end) = connect(router, shutdown.clone());
    client.write_all(SLOW).await.unwrap();
    arrived.notified().await;
    shutdown.cancel();
    let begin = Instant::now();
    end.await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), LIMITS.shutdown.as_secs());
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_a_new_one_and_one_that_is_answered_does_not() {
    let Slow { router, arrived, done } = slow();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_http(listener, router, LIMITS, CancellationToken::new()));
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(GET).await.unwrap();
    response(&mut idle, "ok").await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(SLOW).await.unwrap();
    arrived.notified().await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0, "evicted");
    let mut refused = TcpStream::connect(address).await.unwrap();
    assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or(0), 0, "the only place is taken");
    done.notify_one();
    response(&mut busy, "slow").await;
    let mut next = TcpStream::connect(address).await.unwrap();
    next.write_all(GET).await.unwrap();
    response(&mut next, "ok").await;
}
