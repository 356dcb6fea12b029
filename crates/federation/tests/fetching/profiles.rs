//! How endpoints are authenticated.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::federation::{FetchError, Fetched, Profile};
use countersign_core::x509::CaCertificate;
use futures::FutureExt as _;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peer::{Domain, ENDPOINT_ID, Identity, PEER, WebAuthority, at, fetch, fetcher, spiffe, target};
use crate::server::{Script, Server, config, ok, redirect, serving};

const HOUR: Duration = Duration::from_secs(3600);

/// What a self-serving endpoint that shows `identity` to one that trusts `domain` leads to.
async fn spiffe_with(domain: &Domain, identity: Identity) -> Result<Fetched, FetchError> {
    let server = Server::start(identity, serving("{}")).await;
    fetch(&fetcher(), target(&server.url("/"), spiffe(ENDPOINT_ID), Some(domain.bundle())), None).await
}

/// What an endpoint at `host` that shows `identity` leads to.
async fn web_with(profile: Profile, host: &str, identity: Identity) -> Result<Fetched, FetchError> {
    let server = Server::start(identity, serving("{}")).await;
    fetch(&fetcher(), target(&server.url_of(host, "/"), profile, None), None).await
}

// R50: each side is authenticated by what it published itself.
#[tokio::test]
async fn an_endpoint_that_serves_itself_is_verified_by_the_bundle_of_its_trust_domain() {
    let domain = Domain::new(PEER);
    let document = domain.bundle().to_json();
    for version in [&TLS12, &TLS13] {
        let config = config(domain.svid(ENDPOINT_ID), &[version]);
        let server = Server::start_with(config, serving(document.clone())).await;
        let target = target(&server.url("/bundle"), spiffe(ENDPOINT_ID), Some(domain.bundle()));
        let fetched = fetch(&fetcher(), target, None).await.unwrap();
        assert_eq!(fetched.document, document);
        assert_eq!(fetched.server_id.unwrap().to_string(), ENDPOINT_ID);
    }
}

#[tokio::test]
async fn the_roots_of_the_trust_domain_verify_an_endpoint_of_the_web() {
    let authority = WebAuthority::new();
    for version in [&TLS12, &TLS13] {
        for host in ["localhost", "127.0.0.1"] {
            let config = config(authority.certificate(host), &[version]);
            let server = Server::start_with(config, serving("{}")).await;
            let target = target(&server.url_of(host, "/"), authority.profile(), None);
            let fetched = fetch(&fetcher(), target, None).await;
            assert_eq!(fetched, Ok(Fetched { document: b"{}".to_vec(), server_id: None }), "{host}");
        }
    }
}

#[tokio::test]
async fn without_roots_of_its_own_a_private_authority_is_not_trusted() {
    let identity = WebAuthority::new().certificate("localhost");
    let public = Profile::HttpsWeb { roots: Vec::new() };
    assert_eq!(web_with(public, "localhost", identity).await, Err(FetchError::UntrustedCertificate));
}

#[tokio::test]
async fn another_private_authority_is_not_trusted() {
    let identity = WebAuthority::new().certificate("localhost");
    let fetched = web_with(WebAuthority::new().profile(), "localhost", identity).await;
    assert_eq!(fetched, Err(FetchError::UntrustedCertificate));
}

#[tokio::test]
async fn the_certificate_of_another_host_is_refused() {
    let authority = WebAuthority::new();
    for (host, other) in [("localhost", "other.example"), ("localhost", "127.0.0.1"), ("127.0.0.1", "localhost")] {
        let fetched = web_with(authority.profile(), host, authority.certificate(other)).await;
        assert_eq!(fetched, Err(FetchError::UntrustedCertificate), "{host}");
    }
}

#[tokio::test]
async fn an_expired_certificate_of_the_web_is_refused() {
    let authority = WebAuthority::new();
    let identity = authority.certificate_with("localhost", |params| {
        params.not_after = time::OffsetDateTime::from_unix_timestamp(at(-1).as_second()).unwrap();
    });
    let fetched = web_with(authority.profile(), "localhost", identity).await;
    assert_eq!(fetched, Err(FetchError::UntrustedCertificate));
}

#[tokio::test]
async fn an_svid_does_not_pass_for_the_certificate_of_a_host() {
    let domain = Domain::new(PEER);
    let roots = vec![domain.authority.certificate().der().to_vec()];
    for host in ["localhost", "127.0.0.1"] {
        let profile = Profile::HttpsWeb { roots: roots.clone() };
        let fetched = web_with(profile, host, domain.svid(ENDPOINT_ID)).await;
        assert_eq!(fetched, Err(FetchError::UntrustedCertificate));
    }
}

#[tokio::test]
async fn the_certificate_of_a_host_does_not_pass_for_an_svid() {
    let authority = WebAuthority::new();
    let domain = Domain::new(PEER);
    assert_eq!(spiffe_with(&domain, authority.certificate("127.0.0.1")).await, Err(FetchError::UntrustedCertificate));
    // Nor if its authority is in the bundle.
    let mut bundle = domain.bundle();
    bundle.x509_authorities.push(CaCertificate::from_der(&authority.root).unwrap());
    let server = Server::start(authority.certificate("127.0.0.1"), serving("{}")).await;
    let target = target(&server.url("/"), spiffe(ENDPOINT_ID), Some(bundle));
    assert_eq!(fetch(&fetcher(), target, None).await, Err(FetchError::UntrustedCertificate));
}

#[tokio::test]
async fn another_id_of_the_trust_domain_is_the_wrong_endpoint() {
    let domain = Domain::new(PEER);
    for id in ["spiffe://peer.example/other", "spiffe://peer.example/bundle-endpoint/a"] {
        assert_eq!(spiffe_with(&domain, domain.svid(id)).await, Err(FetchError::WrongEndpointId), "{id}");
    }
}

#[tokio::test]
async fn an_id_that_another_authority_signed_is_not_trusted() {
    let domain = Domain::new(PEER);
    for (signer, id) in [(Domain::new(PEER), ENDPOINT_ID), (Domain::new("other.example"), "spiffe://other.example/a")] {
        let fetched = spiffe_with(&domain, signer.svid(id)).await;
        assert_eq!(fetched, Err(FetchError::UntrustedCertificate), "{id}");
    }
}

#[tokio::test]
async fn an_svid_that_is_expired_or_not_yet_valid_is_refused() {
    let domain = Domain::new(PEER);
    for issued in [at(-1800), at(1800)] {
        let svid = domain.svid_of(ENDPOINT_ID, Duration::from_secs(60), issued);
        assert_eq!(spiffe_with(&domain, svid).await, Err(FetchError::UntrustedCertificate));
    }
    let svid = domain.svid_of(ENDPOINT_ID, HOUR, at(-1800));
    assert!(spiffe_with(&domain, svid).await.is_ok());
}

#[tokio::test]
async fn a_server_without_the_key_of_its_certificate_is_refused() {
    let (domain, authority) = (Domain::new(PEER), WebAuthority::new());
    for version in [&TLS12, &TLS13] {
        let stolen = Identity { key: domain.svid(ENDPOINT_ID).key, ..domain.svid(ENDPOINT_ID) };
        let server = Server::start_with(config(stolen, &[version]), serving("{}")).await;
        let poll = target(&server.url("/"), spiffe(ENDPOINT_ID), Some(domain.bundle()));
        assert_eq!(fetch(&fetcher(), poll, None).await, Err(FetchError::UntrustedCertificate));

        let stolen = Identity { key: domain.svid(ENDPOINT_ID).key, ..authority.certificate("127.0.0.1") };
        let server = Server::start_with(config(stolen, &[version]), serving("{}")).await;
        let poll = target(&server.url("/"), authority.profile(), None);
        assert_eq!(fetch(&fetcher(), poll, None).await, Err(FetchError::UntrustedCertificate));
    }
}

// R50: the trust domain of the endpoint vouches for it, and nobody else does.
#[tokio::test]
async fn an_endpoint_that_does_not_serve_itself_is_verified_by_the_bundle_of_its_own_trust_domain() {
    const ID: &str = "spiffe://hub.example/bundles";
    let (hub, peer) = (Domain::new("hub.example"), Domain::new(PEER));
    let server = Server::start(hub.svid(ID), serving("{}")).await;
    let poll = |anchors| target(&server.url("/"), spiffe(ID), anchors);

    let fetched = fetch(&fetcher(), poll(None), Some(&hub.bundle())).await.unwrap();
    assert_eq!(fetched.server_id.unwrap().to_string(), ID);
    for anchors in [peer.bundle(), Domain::new("hub.example").bundle()] {
        let fetched = fetch(&fetcher(), poll(None), Some(&anchors)).await;
        assert_eq!(fetched, Err(FetchError::UntrustedCertificate));
    }
    // What is in the target is for endpoints that serve themselves.
    let fetched = fetch(&fetcher(), poll(Some(hub.bundle())), Some(&peer.bundle())).await;
    assert_eq!(fetched, Err(FetchError::UntrustedCertificate));
}

#[tokio::test]
async fn an_endpoint_that_serves_itself_is_verified_by_nothing_but_its_own_bundle() {
    let domain = Domain::new(PEER);
    let server = Server::start(domain.svid(ENDPOINT_ID), serving("{}")).await;
    let poll = target(&server.url("/"), spiffe(ENDPOINT_ID), Some(Domain::new(PEER).bundle()));
    let fetched = fetch(&fetcher(), poll, Some(&domain.bundle())).await;
    assert_eq!(fetched, Err(FetchError::UntrustedCertificate));
}

#[tokio::test]
async fn without_anchors_an_endpoint_is_not_called() {
    let domain = Domain::new(PEER);
    let server = Server::start(domain.svid(ENDPOINT_ID), serving("{}")).await;
    for (id, anchors) in [(ENDPOINT_ID, Some(domain.bundle())), ("spiffe://hub.example/bundles", None)] {
        let fetched = fetch(&fetcher(), target(&server.url("/"), spiffe(id), None), anchors.as_ref()).await;
        assert_eq!(fetched, Err(FetchError::UntrustedCertificate));
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn every_connection_verifies_the_certificate_anew() {
    let domain = Domain::new(PEER);
    for version in [&TLS12, &TLS13] {
        let script: Script = Arc::new(|head, mut stream| {
            let kind = stream.get_ref().1.handshake_kind();
            let document: &[u8] = if kind == Some(HandshakeKind::Full) { b"full" } else { b"resumed" };
            let answer = if head.starts_with("GET / ") { redirect(302, "/to") } else { ok(document) };
            async move { stream.write_all(&answer).await.unwrap() }.boxed()
        });
        let server = Server::start_with(config(domain.svid(ENDPOINT_ID), &[version]), script).await;
        let fetcher = fetcher();
        for _ in 0..2 {
            let target = target(&server.url("/"), spiffe(ENDPOINT_ID), Some(domain.bundle()));
            assert_eq!(fetch(&fetcher, target, None).await.unwrap().document, b"full");
        }
        assert_eq!(server.accepted(), 4);
    }
}

#[tokio::test]
async fn a_server_is_asked_for_http_1_1_and_no_other_protocol() {
    let domain = Domain::new(PEER);
    for (protocols, expected) in [(&["h2", "http/1.1"][..], Ok(b"{}".to_vec())), (&["h2"], Err(FetchError::Tls))] {
        let mut config = config(domain.svid(ENDPOINT_ID), &[&TLS13]);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let server = Server::start_with(config, serving("{}")).await;
        let target = target(&server.url("/"), spiffe(ENDPOINT_ID), Some(domain.bundle()));
        assert_eq!(fetch(&fetcher(), target, None).await.map(|fetched| fetched.document), expected);
    }
}

#[tokio::test]
async fn a_server_without_a_current_version_of_tls_is_refused() {
    // A ServerHello of TLS 1.1 (RFC 4346, section 7.4.1.3).
    let hello = [&[22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2][..], &[7; 32], &[0, 0xc0, 0x13, 0]].concat();
    for answer in [
        hello,
        // The alert protocol_version.
        vec![21, 3, 2, 0, 2, 2, 70],
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        Vec::new(),
    ] {
        let server = Server::start_tcp(move |mut stream| {
            let answer = answer.clone();
            async move {
                let mut hello = [0; 5];
                stream.read_exact(&mut hello).await.unwrap();
                // The client may have closed the connection.
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
            .boxed()
        })
        .await;
        let domain = Domain::new(PEER);
        let target = target(&server.url("/"), spiffe(ENDPOINT_ID), Some(domain.bundle()));
        assert_eq!(fetch(&fetcher(), target, None).await, Err(FetchError::Tls));
    }
}
