//! WIMSE Trust Domain Discovery (draft-schwenkschuster-wimse-trust-domain-discovery-00).

use countersign_core::federation::{FetchError, Fetched, Profile};

use crate::peer::{PEER, WebAuthority, fetch, fetcher, target};
use crate::server::{Server, answering, ok, redirect};

/// What comes of a host that answers in this way, and how many calls there were.
async fn discovered(
    answer: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static,
) -> (usize, Result<Fetched, FetchError>) {
    let authority = WebAuthority::new();
    let other = Server::start(authority.certificate("127.0.0.1"), answering(|_| ok(b"elsewhere"))).await;
    let elsewhere = other.url("/bundle");
    let server =
        Server::start(authority.certificate("127.0.0.1"), answering(move |path| answer(path, &elsewhere))).await;
    let profile = Profile::WimseDiscovery { roots: vec![authority.root.clone()] };
    let result = fetch(&fetcher(), target(&server.url("/metadata"), profile, None), None).await;
    (server.accepted() + other.accepted(), result)
}

fn metadata(trust_domain: &str, endpoint: &str) -> Vec<u8> {
    let endpoint = format!("\"{endpoint}\"");
    ok(format!(r#"{{"trust_domain":"{trust_domain}","trust_bundle_endpoint":{endpoint}}}"#).as_bytes())
}

/// R34
#[tokio::test]
async fn the_trust_bundle_is_fetched_from_where_the_metadata_say() {
    let (calls, result) = discovered(|_, elsewhere| metadata(PEER, elsewhere)).await;
    let fetched = result.unwrap();
    assert_eq!((fetched.document.as_slice(), fetched.server_id), (&b"elsewhere"[..], None));
    assert_eq!(calls, 2);
}

#[tokio::test]
async fn metadata_of_another_trust_domain_lead_nowhere() {
    for other in ["other.example", "Peer.example", "a.peer.example"] {
        let (calls, result) = discovered(move |_, elsewhere| metadata(other, elsewhere)).await;
        assert_eq!((calls, result), (1, Err(FetchError::WrongMetadata)), "{other}");
    }
}

#[tokio::test]
async fn what_is_no_metadata_or_leads_to_no_https_url_leads_nowhere() {
    let (calls, result) = discovered(|_, _| ok(b"<html>")).await;
    assert_eq!((calls, result), (1, Err(FetchError::WrongMetadata)));
    let (calls, result) = discovered(|_, elsewhere| metadata(PEER, &elsewhere.replace("https", "http"))).await;
    assert_eq!((calls, result), (1, Err(FetchError::WrongMetadata)));
}

// Whoever can make a host redirect one path of it must not be able to name the anchors.
#[tokio::test]
async fn a_redirect_in_place_of_the_metadata_is_refused() {
    let (calls, result) = discovered(|_, elsewhere| redirect(302, elsewhere)).await;
    assert_eq!((calls, result), (1, Err(FetchError::Redirect)));
}

#[tokio::test]
async fn a_trust_bundle_at_an_address_that_is_not_allowed_is_not_fetched() {
    let (calls, result) = discovered(|_, _| metadata(PEER, "https://10.0.0.1/bundle")).await;
    assert_eq!((calls, result), (1, Err(FetchError::AddressRefused)));
}
