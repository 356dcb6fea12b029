//! Handshakes with the issuer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use countersign_core::{key::KeyType, x509::X509Authority};
use jiff::Timestamp;
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, RootCertStore, ServerConnection,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{ServingCertificate, issue, keep_fresh};
use crate::published::Published;
use countersign_runtime::clock::Clock;
use countersign_runtime::{readiness::Readiness, tls::server_config};

const NAME: &str = "countersign-issuer.countersign-system.svc";

fn authority() -> X509Authority {
    X509Authority::generate_control_plane(KeyType::EcP256, Duration::from_secs(86_400), Timestamp::now()).unwrap()
}

fn server(authority: &X509Authority) -> Arc<rustls::ServerConfig> {
    let certificate = ServingCertificate::default();
    let (key, ..) = issue(authority, &[NAME.to_owned()], Timestamp::now()).unwrap();
    certificate.publish(key);
    server_config(Arc::new(certificate), &[b"h2"]).unwrap()
}

fn client(root: &X509Authority, version: &'static rustls::SupportedProtocolVersion, alpn: &str) -> ClientConfig {
    client_of(root, version, alpn, aws_lc_rs::default_provider())
}

fn client_of(
    root: &X509Authority,
    version: &'static rustls::SupportedProtocolVersion,
    alpn: &str,
    provider: CryptoProvider,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root.certificate().der().to_vec())).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.resumption = Resumption::in_memory_sessions(8);
    config
}

/// Moves records to and fro until both sides are done.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<rustls::ServerConfig>,
    name: &'static str,
) -> Result<ClientConnection, rustls::Error> {
    let mut client = ClientConnection::new(client.clone(), ServerName::try_from(name).unwrap())?;
    let mut server = ServerConnection::new(server.clone())?;
    for _ in 0..10 {
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records).unwrap();
        }
        let mut unread = records.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            server.process_new_packets()?;
        }
        let mut records = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut records).unwrap();
        }
        let mut unread = records.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(client)
}

#[test]
fn an_agent_with_the_root_and_the_name_gets_through() {
    let authority = authority();
    let server = server(&authority);
    let done = handshake(&Arc::new(client(&authority, &TLS13, "h2")), &server, NAME).unwrap();
    assert!(!done.is_handshaking());
    assert_eq!(done.alpn_protocol(), Some(b"h2".as_slice()));
}

#[test]
fn another_root_another_name_an_older_tls_and_another_protocol_are_refused() {
    let (root, other) = (authority(), authority());
    let server = server(&root);
    assert!(handshake(&Arc::new(client(&other, &TLS13, "h2")), &server, NAME).is_err());
    assert!(handshake(&Arc::new(client(&root, &TLS13, "h2")), &server, "elsewhere.svc").is_err());
    assert!(handshake(&Arc::new(client(&root, &TLS12, "h2")), &server, NAME).is_err());
    assert!(handshake(&Arc::new(client(&root, &TLS13, "http/1.1")), &server, NAME).is_err());
}

/// What is recorded today is not to be read by a quantum computer later. An agent that cannot do that is served all the same.
#[test]
fn key_exchange_is_post_quantum_and_x25519_with_a_peer_that_has_nothing_else() {
    let authority = authority();
    let server = server(&authority);
    let only = |group| CryptoProvider { kx_groups: vec![group], ..aws_lc_rs::default_provider() };
    for (provider, group) in [
        (aws_lc_rs::default_provider(), NamedGroup::X25519MLKEM768),
        (only(aws_lc_rs::kx_group::X25519), NamedGroup::X25519),
    ] {
        let client = Arc::new(client_of(&authority, &TLS13, "h2", provider));
        let done = handshake(&client, &server, NAME).unwrap();
        assert_eq!(done.negotiated_key_exchange_group().map(|agreed| agreed.name()), Some(group));
    }
}

/// The client for the API server is made by a library, of the process's default provider.
#[test]
fn every_connection_of_the_process_prefers_a_post_quantum_key_exchange() {
    let preferred = aws_lc_rs::default_provider().kx_groups.first().map(|group| group.name());
    assert_eq!(preferred, Some(NamedGroup::X25519MLKEM768));
}

#[test]
fn nothing_is_resumed() {
    let authority = authority();
    let server = server(&authority);
    let client = Arc::new(client(&authority, &TLS13, "h2"));
    for _ in 0..3 {
        let done = handshake(&client, &server, NAME).unwrap();
        assert_eq!(done.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(done.tls13_tickets_received(), 0);
    }
}

#[test]
fn without_a_certificate_there_is_no_handshake() {
    let authority = authority();
    let server = server_config(Arc::default(), &[b"h2"]).unwrap();
    assert!(handshake(&Arc::new(client(&authority, &TLS13, "h2")), &server, NAME).is_err());
}

/// The clock is set: forward, as when the machine was suspended, past the renewal; back, before what was issued meanwhile.
#[tokio::test(start_paused = true)]
async fn a_certificate_is_replaced_soon_after_the_clock_was_set_past_it_or_before_it() {
    let set = Arc::new(AtomicI64::new(1_800_000_000));
    let clock = {
        let (set, start) = (set.clone(), tokio::time::Instant::now());
        Clock::new(move || Timestamp::from_second(set.load(Ordering::SeqCst)).unwrap() + start.elapsed())
    };
    let root =
        X509Authority::generate_control_plane(KeyType::EcP256, Duration::from_secs(864_000), clock.now()).unwrap();
    let published = Published { control_plane: Some(Arc::new(root)), ..Published::default() };
    let (_publisher, published) = watch::channel(Arc::new(published));
    let certificate = Arc::new(ServingCertificate::default());
    let names = vec![NAME.to_owned()];
    tokio::spawn(keep_fresh(
        certificate.clone(),
        names,
        published,
        clock.clone(),
        Readiness::default().check("a serving certificate is missing"),
    ));
    for by in [0, 20 * 3_600, -10 * 3_600, 3_600, -3_600] {
        set.fetch_add(by, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(11)).await;
        let key = certificate.current().expect("a certificate");
        let (_, leaf) = X509Certificate::from_der(key.cert[0].as_ref()).unwrap();
        let (now, validity) = (clock.now().as_second(), leaf.validity());
        let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        assert!(from <= now, "set by {by} s: not valid before another {} s", from - now);
        assert!(now < from + (to - from) / 2 + (to - from) / 20, "set by {by} s: renewal was due");
    }
}
