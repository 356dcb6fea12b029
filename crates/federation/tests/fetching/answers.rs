//! What endpoints answer: sizes, times, statuses and what is not HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_core::bundle::MAX_BUNDLE_LENGTH;
use countersign_core::federation::{FetchError, Fetched};
use countersign_federation::{Fetcher, Limits};
use futures::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use crate::peer::{Domain, ENDPOINT_ID, PEER, fetch, fetcher, spiffe, target};
use crate::server::{Script, Server, answering, ok, script, serving};

/// What the sockets of both sides and TLS may hold beyond what was read.
const UNDER_WAY: usize = 12 * 1024 * 1024;

async fn fetched_by(fetcher: &Fetcher, script: Script) -> (Server, Result<Fetched, FetchError>) {
    let domain = Domain::new(PEER);
    let server = Server::start(domain.svid(ENDPOINT_ID), script).await;
    let target = target(&server.url("/bundle?a=b"), spiffe(ENDPOINT_ID), Some(domain.bundle()));
    let result = fetch(fetcher, target, None).await;
    (server, result)
}

async fn fetched(answer: impl Into<Vec<u8>>) -> Result<Fetched, FetchError> {
    let answer = answer.into();
    fetched_by(&fetcher(), answering(move |_| answer.clone())).await.1
}

/// One that gives up soon.
fn impatient() -> Fetcher {
    let total = Duration::from_millis(500);
    fetcher().with_limits(Limits { total, connect: total })
}

/// Sends `begin`, then `chunk` again and again until the client closes the connection. How many bytes could be written is in
/// the counter once `Notify` says so.
fn endless(begin: &'static [u8], chunk: Vec<u8>) -> (Script, Arc<(AtomicUsize, Notify)>) {
    let written = Arc::new((AtomicUsize::new(0), Notify::new()));
    let count = written.clone();
    let script = script(move |mut stream| {
        let (count, chunk) = (count.clone(), chunk.clone());
        async move {
            stream.write_all(begin).await.unwrap();
            while stream.write_all(&chunk).await.is_ok() {
                count.0.fetch_add(chunk.len(), Ordering::SeqCst);
            }
            count.1.notify_one();
        }
    });
    (script, written)
}

/// Sends `begin`, then a byte now and then for ever.
fn trickling(begin: &'static [u8], byte: u8) -> Script {
    script(move |mut stream| async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        stream.write_all(begin).await.unwrap();
        while stream.write_all(&[byte]).await.is_ok() {
            pace.tick().await;
        }
    })
}

#[tokio::test]
async fn a_request_says_what_it_must_and_nothing_else() {
    let (server, result) = fetched_by(&fetcher(), serving("{}")).await;
    assert!(result.is_ok());
    let expected = format!(
        "GET /bundle?a=b HTTP/1.1\r\nhost: 127.0.0.1:{}\r\naccept: application/json\r\naccept-encoding: identity\r\n\
         user-agent: countersign-operator/{}\r\n\r\n",
        server.port(),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(server.requests(), [expected]);
}

#[tokio::test]
async fn a_document_of_any_type_and_framing_is_read() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/html\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: Identity\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nA: trailer\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n\r\n{}",
        "HTTP/1.0 200 OK\r\n\r\n{}",
    ] {
        assert_eq!(fetched(answer).await.unwrap().document, b"{}", "{answer}");
    }
}

#[tokio::test]
async fn another_status_than_200_is_no_document() {
    for status in [201, 204, 206, 400, 401, 403, 404, 429, 500, 503, 999] {
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\n{{}}");
        assert_eq!(fetched(answer).await, Err(FetchError::Status(status)));
    }
}

#[tokio::test]
async fn a_document_has_a_longest_length() {
    let longest = vec![b' '; MAX_BUNDLE_LENGTH];
    assert_eq!(fetched(ok(&longest)).await.unwrap().document.len(), MAX_BUNDLE_LENGTH);
    let chunk = [format!("{MAX_BUNDLE_LENGTH:x}\r\n").as_bytes(), &longest, b"\r\n"].concat();
    let begin = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    let chunked = |last: &[u8]| [begin, &chunk, last].concat();
    assert!(fetched(chunked(b"0\r\n\r\n")).await.is_ok());
    assert_eq!(fetched(chunked(b"1\r\n \r\n0\r\n\r\n")).await, Err(FetchError::TooLong));
}

#[tokio::test]
async fn of_a_document_that_is_announced_as_too_long_nothing_is_read() {
    for length in ["1048577", "1073741824", "18446744073709551613"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        // The body never comes.
        let script = script(move |mut stream| {
            let answer = answer.clone();
            async move {
                stream.write_all(answer.as_bytes()).await.unwrap();
                std::future::pending::<()>().await;
            }
        });
        assert_eq!(fetched_by(&fetcher(), script).await.1, Err(FetchError::TooLong), "{length}");
    }
}

#[tokio::test]
async fn of_a_document_without_end_a_mebibyte_is_read() {
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    for (begin, chunk) in [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), chunk),
        (b"HTTP/1.1 200 OK\r\n\r\n", vec![b' '; 0x10000]),
    ] {
        let (script, written) = endless(begin, chunk);
        let (_server, result) = fetched_by(&fetcher(), script).await;
        assert_eq!(result, Err(FetchError::TooLong));
        written.1.notified().await;
        let written = written.0.load(Ordering::SeqCst);
        assert!(written < MAX_BUNDLE_LENGTH + UNDER_WAY, "{written} bytes were taken");
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_read_to_the_end() {
    let chunk = vec![b'a'; 0x10000];
    let many = b"A: b\r\n".repeat(0x2000);
    for (begin, chunk) in [
        (b"HTTP/1.1 200 OK\r\nA: ".as_slice(), chunk.clone()),
        (b"HTTP/1.1 200 OK\r\n", many),
        (b"HTTP/1.1 200 ", chunk.clone()),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", chunk.clone()),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", chunk),
    ] {
        let (script, written) = endless(begin, chunk);
        let (_server, result) = fetched_by(&fetcher(), script).await;
        assert_eq!(result, Err(FetchError::Interrupted));
        written.1.notified().await;
        let written = written.0.load(Ordering::SeqCst);
        assert!(written < UNDER_WAY, "{written} bytes were taken");
    }
}

#[tokio::test]
async fn a_head_has_a_longest_length() {
    let answer = |length| format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: {}\r\n\r\n{{}}", "a".repeat(length));
    assert!(fetched(answer(8 * 1024)).await.is_ok());
    assert_eq!(fetched(answer(17 * 1024)).await, Err(FetchError::Interrupted));
}

#[tokio::test]
async fn a_compressed_answer_is_refused() {
    for encodings in ["gzip", "br", "identity, gzip", "identity\r\nContent-Encoding: gzip", ""] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: {encodings}\r\n\r\n{{}}");
        assert_eq!(fetched(answer).await, Err(FetchError::Interrupted), "{encodings}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    for answer in [
        "",
        "{}",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/2 200 OK\r\n\r\n{}",
        "HTTP/1.1 2000 OK\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n{}\r\n",
    ] {
        assert_eq!(fetched(answer).await, Err(FetchError::Interrupted), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_document() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ] {
        assert_eq!(fetched(answer).await, Err(FetchError::Interrupted), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_before_its_end_was_announced_is_no_document() {
    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n{}"] {
        // Without close_notify (RFC 8446, section 6.1): anybody on the path could have cut it.
        let cut = script(move |mut stream| async move {
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        assert_eq!(fetched_by(&fetcher(), cut).await.1, Err(FetchError::Interrupted), "{answer}");
        let reset = script(move |mut stream| async move {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.get_ref().0.set_zero_linger().unwrap();
        });
        assert_eq!(fetched_by(&fetcher(), reset).await.1, Err(FetchError::Interrupted), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_not_awaited() {
    let silent = script(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    });
    assert_eq!(fetched_by(&impatient(), silent).await.1, Err(FetchError::Timeout));
}

#[tokio::test]
async fn a_handshake_that_never_comes_is_not_awaited() {
    let server = Server::start_tcp(|stream| {
        async move {
            let _stream = stream;
            std::future::pending::<()>().await;
        }
        .boxed()
    })
    .await;
    let target = target(&server.url("/"), spiffe(ENDPOINT_ID), Some(Domain::new(PEER).bundle()));
    assert_eq!(fetch(&impatient(), target, None).await, Err(FetchError::Timeout));
}

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_has_a_deadline() {
    for begin in [
        b"HTTP/1.1 200 OK\r\nA: ".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(fetched_by(&impatient(), trickling(begin, b'a')).await.1, Err(FetchError::Timeout));
    }
}
