//! Redirects: SPIFFE Federation, sections 5.2.1.4, 5.2.2.4 and 7.5.1.

use countersign_core::federation::{FetchError, Fetched};

use crate::peer::{Domain, ENDPOINT_ID, PEER, WebAuthority, fetch, fetcher, spiffe, target};
use crate::server::{Server, answering, ok, redirect, serving};

/// What comes of a self-serving endpoint that answers in this way, beginning at `path`.
async fn fetched(
    path: &str,
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> (Server, Result<Fetched, FetchError>) {
    let domain = Domain::new(PEER);
    let server = Server::start(domain.svid(ENDPOINT_ID), answering(answer)).await;
    let target = target(&server.url(path), spiffe(ENDPOINT_ID), Some(domain.bundle()));
    let result = fetch(&fetcher(), target, None).await;
    (server, result)
}

/// What comes of an endpoint that redirects to `location`.
async fn redirected(location: &str) -> Result<Fetched, FetchError> {
    let location = location.to_owned();
    fetched("/", move |_| redirect(302, &location)).await.1
}

/// `/3` leads to `/2` and so on; `/0` is the document.
fn countdown(path: &str) -> Vec<u8> {
    match path.trim_start_matches('/').parse::<u8>().unwrap() {
        0 => ok(b"document"),
        left => redirect(302, &format!("/{}", left - 1)),
    }
}

#[tokio::test]
async fn three_redirects_are_followed() {
    let (server, result) = fetched("/3", countdown).await;
    let fetched = result.unwrap();
    assert_eq!(fetched.document, b"document");
    assert_eq!(fetched.server_id.unwrap().to_string(), ENDPOINT_ID);
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn four_redirects_are_too_many() {
    let (server, result) = fetched("/4", countdown).await;
    assert_eq!(result, Err(FetchError::Redirect));
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    let (server, result) = fetched("/a", |_| redirect(302, "/a")).await;
    assert_eq!(result, Err(FetchError::Redirect));
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn every_redirect_of_a_get_is_followed_and_other_statuses_are_not() {
    let answer = |status| move |path: &str| if path == "/to" { ok(b"document") } else { redirect(status, "to") };
    for status in [301, 302, 303, 307, 308] {
        assert!(fetched("/", answer(status)).await.1.is_ok(), "{status}");
    }
    for status in [201, 300, 304, 305, 306, 399] {
        assert_eq!(fetched("/", answer(status)).await.1, Err(FetchError::Status(status)), "{status}");
    }
}

#[tokio::test]
async fn a_permanent_redirect_is_not_remembered() {
    let domain = Domain::new(PEER);
    let answer = |path: &str| if path == "/to" { ok(b"document") } else { redirect(308, "/to") };
    let server = Server::start(domain.svid(ENDPOINT_ID), answering(answer)).await;
    let fetcher = fetcher();
    for _ in 0..2 {
        let target = target(&server.url("/from"), spiffe(ENDPOINT_ID), Some(domain.bundle()));
        assert!(fetch(&fetcher, target, None).await.is_ok());
    }
    let lines = server.requests().into_iter().map(|head| head.lines().next().unwrap().to_owned());
    let expected = ["GET /from HTTP/1.1", "GET /to HTTP/1.1", "GET /from HTTP/1.1", "GET /to HTTP/1.1"];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_redirect_to_what_could_not_be_configured_is_refused() {
    for location in ["http://127.0.0.1/", "https://me@127.0.0.1/", "https://me:secret@127.0.0.1/", "ftp://a/", "//["] {
        assert_eq!(redirected(location).await, Err(FetchError::Redirect), "{location}");
    }
    let without = |_: &str| b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_vec();
    assert_eq!(fetched("/", without).await.1, Err(FetchError::Redirect));
}

#[tokio::test]
async fn a_redirect_to_a_refused_address_is_refused() {
    for host in ["10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "[fd00:ec2::254]", "0x0a000001"] {
        let result = redirected(&format!("https://{host}/latest/meta-data/")).await;
        assert_eq!(result, Err(FetchError::AddressRefused), "{host}");
    }
}

#[tokio::test]
async fn a_redirect_leads_to_the_same_id_at_any_host() {
    let domain = Domain::new(PEER);
    let same = Server::start(domain.svid(ENDPOINT_ID), serving("document")).await;
    let other = Server::start(domain.svid("spiffe://peer.example/other"), serving("document")).await;
    for (to, expected) in [(&same, Ok(b"document".to_vec())), (&other, Err(FetchError::WrongEndpointId))] {
        let location = to.url_of("localhost", "/");
        let from = Server::start(domain.svid(ENDPOINT_ID), answering(move |_| redirect(307, &location))).await;
        let target = target(&from.url("/"), spiffe(ENDPOINT_ID), Some(domain.bundle()));
        assert_eq!(fetch(&fetcher(), target, None).await.map(|fetched| fetched.document), expected);
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_redirect_leads_to_a_host_that_the_same_authorities_vouch_for() {
    let authority = WebAuthority::new();
    for (certificate, expected) in [
        (authority.certificate("localhost"), Ok(b"document".to_vec())),
        (authority.certificate("127.0.0.1"), Err(FetchError::UntrustedCertificate)),
        (WebAuthority::new().certificate("localhost"), Err(FetchError::UntrustedCertificate)),
    ] {
        let to = Server::start(certificate, serving("document")).await;
        let location = to.url_of("localhost", "/");
        let from =
            Server::start(authority.certificate("127.0.0.1"), answering(move |_| redirect(302, &location))).await;
        let target = target(&from.url("/"), authority.profile(), None);
        assert_eq!(fetch(&fetcher(), target, None).await.map(|fetched| fetched.document), expected);
    }
}
