//! TLS 1.3 with a serving certificate that can be replaced without closing connections.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::serving::ServingCertificate;

/// The current serving certificate; handshakes fail until there is one.
#[derive(Debug, Default)]
pub struct Certificate(ArcSwapOption<CertifiedKey>);

impl Certificate {
    /// Serves `serving` from the next handshake on.
    pub fn publish(&self, serving: ServingCertificate) {
        self.0.store(Some(Arc::new(serving.into_certified_key())));
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.0.load().is_some()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// The server's configuration.
///
/// # Errors
/// When the provider lacks TLS 1.3, which it does not.
pub fn config(certificate: Arc<Certificate>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rustls::{
        ClientConfig, ClientConnection, NamedGroup, RootCertStore, ServerConnection,
        crypto::CryptoProvider,
        pki_types::{CertificateDer, pem::PemObject},
        version::TLS12,
    };

    use super::*;
    use crate::ca::{self, CaState, ValidityPeriods};

    const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
    const NAME: &str = "countersign-webhook.countersign-system.svc";

    fn authority() -> CaState {
        let (state, now) = (CaState::default(), Timestamp::now());
        let periods = ValidityPeriods::new(DAY * 90, DAY, DAY / 12).unwrap();
        state.after(&ca::next(&state, periods, now), periods, now).unwrap()
    }

    fn publish(certificate: &Certificate, authority: &CaState) {
        let issued = authority.issue(&[NAME.to_owned()], Timestamp::now()).unwrap();
        certificate.publish(ServingCertificate::read(issued.certificate.as_bytes(), issued.key.as_bytes()).unwrap());
    }

    fn handshake(
        server: &Arc<ServerConfig>,
        trusted: &CaState,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<(), rustls::Error> {
        connect(server, trusted, versions, aws_lc_rs::default_provider()).map(drop)
    }

    fn connect(
        server: &Arc<ServerConfig>,
        trusted: &CaState,
        versions: &[&'static rustls::SupportedProtocolVersion],
        provider: CryptoProvider,
    ) -> Result<ClientConnection, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(trusted.bundle().as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(client), NAME.try_into().unwrap())?;
        let mut server = ServerConnection::new(Arc::clone(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(client)
    }

    #[test]
    fn what_is_published_is_served_from_the_next_handshake_on() {
        let certificate = Arc::new(Certificate::default());
        let server = config(Arc::clone(&certificate)).unwrap();
        let (old, new) = (authority(), authority());
        assert!(!certificate.is_published());
        assert!(handshake(&server, &old, &[&TLS13]).is_err());
        publish(&certificate, &old);
        assert!(certificate.is_published());
        assert_eq!(handshake(&server, &old, &[&TLS13]), Ok(()));
        publish(&certificate, &new);
        assert_eq!(handshake(&server, &new, &[&TLS13]), Ok(()));
        assert!(handshake(&server, &old, &[&TLS13]).is_err());
    }

    #[test]
    fn nothing_below_tls_1_3_is_served() {
        let (certificate, authority) = (Arc::new(Certificate::default()), authority());
        publish(&certificate, &authority);
        let server = config(certificate).unwrap();
        assert!(handshake(&server, &authority, &[&TLS12]).is_err());
    }

    #[test]
    fn key_exchange_is_post_quantum_and_x25519_with_a_peer_that_has_nothing_else() {
        let (certificate, authority) = (Arc::new(Certificate::default()), authority());
        publish(&certificate, &authority);
        let server = config(certificate).unwrap();
        let only = |group| CryptoProvider { kx_groups: vec![group], ..aws_lc_rs::default_provider() };
        for (provider, group) in [
            (aws_lc_rs::default_provider(), NamedGroup::X25519MLKEM768),
            (only(aws_lc_rs::kx_group::X25519), NamedGroup::X25519),
        ] {
            let client = connect(&server, &authority, &[&TLS13], provider).unwrap();
            assert_eq!(client.negotiated_key_exchange_group().map(|agreed| agreed.name()), Some(group));
        }
    }
}
