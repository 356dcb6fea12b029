//! TLS with a serving certificate that is replaced while connections go on. A server publishes a certificate before the current
//! one expires; each handshake takes the one of that moment.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite},
    },
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

/// The certificate that handshakes take; they fail until there is one.
#[derive(Debug, Default)]
pub struct ServingCertificate(ArcSwapOption<CertifiedKey>);

impl ServingCertificate {
    /// Serves this one from the next handshake on.
    pub fn publish(&self, certificate: CertifiedKey) {
        self.0.store(Some(Arc::new(certificate)));
    }

    /// The one that is served now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// TLS 1.3 only, with these application protocols (RFC 7301), and without resumption: a session must not outlive what was
/// authenticated in it.
///
/// # Errors
/// When the provider does not support TLS 1.3.
pub fn server_config(
    certificate: Arc<ServingCertificate>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    server_config_by(certificate, protocols)
}

/// As [`server_config`], with certificates that `resolver` chooses for each handshake.
///
/// # Errors
/// When the provider does not support TLS 1.3.
pub fn server_config_by(
    resolver: Arc<dyn ResolvesServerCert>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    config(aws_lc_rs::default_provider(), &[&TLS13], resolver, protocols)
}

/// For clients of the web, which may be older than TLS 1.3: TLS 1.2 as well, with the cipher suites that Mozilla recommends as
/// "intermediate", all with forward secrecy and authenticated encryption. Without resumption, as [`server_config`].
///
/// # Errors
/// When the provider supports neither version.
pub fn web_server_config(
    resolver: Arc<dyn ResolvesServerCert>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = CryptoProvider { cipher_suites: INTERMEDIATE.to_vec(), ..aws_lc_rs::default_provider() };
    config(provider, &[&TLS13, &TLS12], resolver, protocols)
}

/// Named, so that a new release of the library adds none.
const INTERMEDIATE: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

fn config(
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
    resolver: Arc<dyn ResolvesServerCert>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::{ServingCertificate, web_server_config};
    use std::sync::Arc;

    // Mozilla's recommendation "intermediate", version 5.7, without finite-field key exchange, which rustls does not have.
    #[test]
    fn the_web_is_offered_nothing_but_forward_secrecy_and_authenticated_encryption() {
        let config = web_server_config(Arc::new(ServingCertificate::default()), &[b"h2"]).unwrap();
        let suites = &config.crypto_provider().cipher_suites;
        let mut names: Vec<_> = suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "TLS13_AES_128_GCM_SHA256",
                "TLS13_AES_256_GCM_SHA384",
                "TLS13_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ]
        );
    }
}
