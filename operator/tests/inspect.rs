//! Replicas ask each other over mutual TLS: real sockets, real certificates of a control plane's root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use countersign_core::{key::KeyType, x509::X509Authority};
use countersign_index::SharedIndex;
use countersign_issuer::published::Published;
use countersign_issuer::{
    agent_versions::SupportPolicy,
    record::AgentInfo,
    registry::{Registry, StreamLimits},
};
use countersign_operator::inspect::{
    client::{AskError, ask},
    credential::{Credential, CredentialError},
    report::Source,
    server,
};
use countersign_proto::inspect::v1::PodAddresses;
use countersign_runtime::{clock::Clock, readiness::Readiness};
use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsConnector;

const REPLICA: &str = "countersign-operator.countersign-system.svc";
const ISSUER: &str = "countersign-issuer.countersign-system.svc";

fn control_plane() -> Published {
    let life = Duration::from_secs(24 * 3600);
    let root = X509Authority::generate_control_plane(KeyType::EcP256, life, Timestamp::now()).unwrap();
    let roots = vec![root.certificate().der().to_vec()];
    Published { control_plane: Some(Arc::new(root)), control_plane_roots: roots, ..Published::default() }
}

fn named(name: &'static str, published: &Published) -> Arc<Credential> {
    let credential = Credential::new(ServerName::try_from(name).unwrap());
    credential.renew(published, Timestamp::now()).unwrap();
    credential
}

async fn replica(credential: Arc<Credential>) -> (SocketAddr, Registry) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, registry) = (listener.local_addr().unwrap(), Registry::new(StreamLimits::default()));
    let source = Source {
        replica: "operator-b".to_owned(),
        registry: registry.clone(),
        readiness: Readiness::default(),
        support: SupportPolicy::default(),
        index: SharedIndex::default(),
        published: watch::channel(Arc::default()).1,
        clock: Clock::system(),
    };
    tokio::spawn(server::serve(listener, credential, source));
    (address, registry)
}

/// Whether the replica speaks HTTP/2 to who connects so: its settings come at once.
async fn is_let_in(address: SocketAddr, config: Arc<ClientConfig>) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    match TlsConnector::from(config).connect(ServerName::try_from(REPLICA).unwrap(), stream).await {
        Err(_) => false,
        Ok(mut stream) => stream.read(&mut [0; 1]).await.is_ok_and(|read| read > 0),
    }
}

#[tokio::test]
async fn a_replica_tells_another_what_it_serves() {
    let published = control_plane();
    let (address, registry) = replica(named(REPLICA, &published)).await;
    let from = std::net::IpAddr::from([10, 0, 0, 1]);
    let agent = AgentInfo::new("0.1.0", &[]);
    let _stream = registry.register("p1", "", Some(from), agent, tokio::time::Instant::now()).unwrap();
    let report = ask(address, &named(REPLICA, &published)).await.unwrap();
    assert_eq!(report.replica, "operator-b");
    assert_eq!(report.agents.iter().map(|one| (one.version.as_str(), one.pods)).collect::<Vec<_>>(), [("0.1.0", 1)]);
    assert_eq!(report.pods, [PodAddresses { uid: "p1".to_owned(), addresses: vec![vec![10, 0, 0, 1]], open: true }]);
}

// Only replicas of this control plane: not who has no certificate, nor one of another root, nor one with another name.
#[tokio::test]
async fn nobody_else_is_let_in() {
    let published = control_plane();
    let (address, _registry) = replica(named(REPLICA, &published)).await;
    assert!(is_let_in(address, named(REPLICA, &published).client_config().unwrap()).await, "the replica itself");

    let mut roots = RootCertStore::empty();
    roots.add(published.control_plane_roots[0].clone().into()).unwrap();
    let mut without = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    without.alpn_protocols = vec![b"h2".to_vec()];
    assert!(!is_let_in(address, Arc::new(without)).await, "without a certificate");

    let issuer = named(ISSUER, &published).client_config().unwrap();
    assert!(!is_let_in(address, issuer).await, "a certificate of the same root with another name");

    let mut foreign = control_plane();
    // It trusts the replica's root, so that only its own certificate is wrong.
    foreign.control_plane_roots = published.control_plane_roots.clone();
    assert!(!is_let_in(address, named(REPLICA, &foreign).client_config().unwrap()).await, "of another root");
}

// Who answers at a replica's address is not believed for it.
#[tokio::test]
async fn an_impostor_is_not_asked() {
    let published = control_plane();
    for impostor in [named(ISSUER, &published), named(REPLICA, &control_plane())] {
        let (address, _registry) = replica(impostor).await;
        let error = ask(address, &named(REPLICA, &published)).await.unwrap_err();
        assert!(matches!(error, AskError::Connect { .. }), "{error}");
    }
}

#[tokio::test]
async fn key_exchange_between_replicas_is_post_quantum() {
    let published = control_plane();
    let (address, _registry) = replica(named(REPLICA, &published)).await;
    let connector = TlsConnector::from(named(REPLICA, &published).client_config().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = connector.connect(ServerName::try_from(REPLICA).unwrap(), stream).await.unwrap();
    let agreed = stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(agreed, Some(rustls::NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn a_change_of_roots_is_followed_by_who_stands_already() {
    let (old, new) = (control_plane(), control_plane());
    let (server, client) = (named(REPLICA, &old), named(REPLICA, &old));
    let (address, _registry) = replica(server.clone()).await;
    ask(address, &client).await.unwrap();
    for credential in [&server, &client] {
        credential.renew(&new, Timestamp::now()).unwrap();
    }
    ask(address, &client).await.unwrap();
    assert!(ask(address, &named(REPLICA, &old)).await.is_err(), "the old root is trusted no longer");
}

#[tokio::test]
async fn before_the_control_planes_root_is_there_nobody_asks() {
    let credential = Credential::new(ServerName::try_from(REPLICA).unwrap());
    let error = ask("127.0.0.1:9".parse().unwrap(), &credential).await.unwrap_err();
    assert!(matches!(error, AskError::Credential(CredentialError::NoRoot)), "{error}");
}
