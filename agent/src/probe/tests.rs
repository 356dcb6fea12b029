//! Two sides with credentials as the agent writes them, over a socket.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use countersign_core::{
    bundle::{Bundle, BundleSet},
    id::TrustDomain,
    key::{KeyType, PrivateKey},
    x509::{LeafRequest, X509Authority},
};
use jiff::Timestamp;
use tempfile::TempDir;

use super::{Outcome, Probe, Report, Role};
use crate::{
    files::Folder,
    publish::{Credentials, Svid},
};

/// Long enough for any machine; nothing waits for it.
const TIMEOUT: Duration = Duration::from_secs(60);

fn authority(domain: &str) -> X509Authority {
    let domain: TrustDomain = domain.parse().unwrap();
    X509Authority::generate(&domain, KeyType::EcP256, Duration::from_secs(3600), Timestamp::now()).unwrap()
}

/// The files of a pod of `authority` that trusts `trusted`.
fn pod(id: &str, authority: &X509Authority, trusted: &[&X509Authority]) -> TempDir {
    let id = id.parse().unwrap();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let leaf = LeafRequest { spki: key.public_key(), id: &id, dns_names: &[], ttl: Duration::from_secs(600) };
    let issued = authority.issue(&leaf, Timestamp::now()).unwrap();
    let foreign: Vec<TrustDomain> = trusted.iter().filter_map(|one| one.trust_domain().cloned()).collect();
    let svid = Svid {
        id,
        hint: String::new(),
        chain: issued.chain,
        key,
        expires_at: issued.not_after,
        federates_with: foreign,
        tokens: Default::default(),
        wit: None,
    };
    let bundle = |authority: &&X509Authority| Bundle {
        trust_domain: authority.trust_domain().unwrap().clone(),
        x509_authorities: vec![authority.certificate().clone()],
        jwt_authorities: Vec::new(),
        wit_authorities: Vec::new(),
        sequence: 1,
        refresh_hint: Duration::from_secs(300),
    };
    let bundles = std::iter::once(&authority).chain(trusted).map(bundle);
    let credentials = Credentials {
        revision: 1,
        wit_revision: 1,
        svids: vec![svid],
        trust: Arc::new(BundleSet::new(bundles).unwrap()),
        terms: Arc::default(),
    };
    let directory = tempfile::tempdir().unwrap();
    Folder::new(directory.path(), 0o444).write(&credentials).unwrap();
    directory
}

/// An address where nobody listens.
async fn free_address() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

fn probe(role: Role, pod: &TempDir) -> Probe {
    Probe { role, timeout: TIMEOUT, folder: pod.path().join("credentials") }
}

async fn between(server: &TempDir, client: &TempDir) -> (Report, Report) {
    let address = free_address().await;
    let (serve, dial) = (probe(Role::Serve(address), server), probe(Role::Dial(address), client));
    tokio::join!(serve.run(), dial.run())
}

#[tokio::test]
async fn two_pods_of_one_trust_domain_know_each_other() {
    let authority = authority("a.example");
    let server = pod("spiffe://a.example/orders", &authority, &[]);
    let client = pod("spiffe://a.example/cart", &authority, &[]);
    let (serve, dial) = between(&server, &client).await;
    assert_eq!((serve.outcome, dial.outcome), (Outcome::Authenticated, Outcome::Authenticated));
    assert_eq!(serve.peer.unwrap().to_string(), "spiffe://a.example/cart");
    assert_eq!(dial.peer.unwrap().to_string(), "spiffe://a.example/orders");
}

#[tokio::test]
async fn a_side_that_is_not_trusted_is_refused_and_the_reason_is_named_where_it_is_known() {
    let (a, b) = (authority("a.example"), authority("b.example"));
    let client = pod("spiffe://b.example/cart", &b, &[&a]);
    let server = pod("spiffe://a.example/orders", &a, &[]);
    let (serve, dial) = between(&server, &client).await;
    assert_eq!((serve.outcome, dial.outcome), (Outcome::RefusedPeer, Outcome::RefusedByPeer), "{serve:?} {dial:?}");
    assert!(serve.message.unwrap().contains("b.example"));

    let client = pod("spiffe://b.example/cart", &b, &[]);
    let server = pod("spiffe://a.example/orders", &a, &[&b]);
    let (serve, dial) = between(&server, &client).await;
    assert_eq!((serve.outcome, dial.outcome), (Outcome::RefusedByPeer, Outcome::RefusedPeer), "{serve:?} {dial:?}");
    assert!(dial.message.unwrap().contains("a.example"));
}

#[tokio::test]
async fn two_trust_domains_that_trust_each_other_know_each_other() {
    let (a, b) = (authority("a.example"), authority("b.example"));
    let client = pod("spiffe://b.example/cart", &b, &[&a]);
    let server = pod("spiffe://a.example/orders", &a, &[&b]);
    let (serve, dial) = between(&server, &client).await;
    assert_eq!((serve.outcome, dial.outcome), (Outcome::Authenticated, Outcome::Authenticated));
}

#[tokio::test(start_paused = true)]
async fn without_an_identity_or_a_peer_the_report_says_so() {
    let nothing = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let report = probe(Role::Dial(address), &nothing).run().await;
    assert_eq!((report.outcome, report.own), (Outcome::NoIdentity, None));

    let client = pod("spiffe://a.example/cart", &authority("a.example"), &[]);
    let report = probe(Role::Dial(address), &client).run().await;
    assert_eq!(report.outcome, Outcome::Unreachable, "{report:?}");
    let text = serde_json::to_string(&report).unwrap();
    assert!(
        text.contains(r#""outcome":"unreachable""#) && text.contains(r#""own":"spiffe://a.example/cart""#),
        "{text}"
    );
}
