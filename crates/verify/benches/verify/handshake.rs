//! A handshake in memory, with mutual authentication.

use std::sync::Arc;

use countersign_core::{
    bundle::{Bundle, BundleSet},
    key::{KeyType, PrivateKey},
    x509::{LeafRequest, X509Authority},
};
use countersign_verify::{
    Authorizer,
    tls::{FixedBundles, Svid, mtls_client_config, mtls_server_config},
};
use jiff::Timestamp;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{TTL, id, in_turn};

const NAME: &str = "cart.shop.svc";

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl Svid for Fixed {
    fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Microseconds of a handshake with ours, and with webpki alone: the same certificates, keys, suites and version.
pub(crate) fn compare(rounds: usize) -> (f64, f64) {
    let (id, now) = (id(), Timestamp::now());
    let authority = X509Authority::generate(id.trust_domain(), KeyType::EcP256, TTL * 24, now).unwrap();
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let names = [NAME.to_owned()];
    let request = LeafRequest { spki: key.public_key(), id: &id, dns_names: &names, ttl: TTL };
    let chain: Vec<CertificateDer<'static>> =
        authority.issue(&request, now).unwrap().chain.into_iter().map(CertificateDer::from).collect();
    let private = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));

    let certified = CertifiedKey::from_der(chain.clone(), private(), &aws_lc_rs::default_provider()).unwrap();
    let svid = Arc::new(Fixed(Arc::new(certified)));
    let bundle = Bundle {
        trust_domain: id.trust_domain().clone(),
        x509_authorities: vec![authority.certificate().clone()],
        jwt_authorities: Vec::new(),
        wit_authorities: Vec::new(),
        sequence: 1,
        refresh_hint: TTL,
    };
    let bundles = Arc::new(FixedBundles(Arc::new(BundleSet::new([bundle]).unwrap())));
    let peers = Authorizer::id(&id.to_string()).unwrap();
    let server = Arc::new(mtls_server_config(svid.clone(), bundles.clone(), peers.clone()).unwrap());
    let client = Arc::new(mtls_client_config(svid, bundles, peers).unwrap());

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.certificate().der().to_vec())).unwrap();
    let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
    let callers = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    let mut plain_server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(callers)
        .with_single_cert(chain.clone(), private())
        .unwrap();
    plain_server.session_storage = Arc::new(NoServerSessionStorage {});
    plain_server.send_tls13_tickets = 0;
    let mut plain_client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private())
        .unwrap();
    plain_client.resumption = Resumption::disabled();
    let (plain_server, plain_client) = (Arc::new(plain_server), Arc::new(plain_client));

    let taken =
        in_turn(rounds, [&|| shake(&client, &server).unwrap(), &|| shake(&plain_client, &plain_server).unwrap()]);
    (taken[0], taken[1])
}

/// One handshake, from hello to the last confirmation.
pub(crate) fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(), rustls::Error> {
    let mut client = ClientConnection::new(client.clone(), NAME.try_into().unwrap())?;
    let mut server = ServerConnection::new(server.clone())?;
    let mut bytes = Vec::with_capacity(8192);
    while client.is_handshaking() || server.is_handshaking() {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}
