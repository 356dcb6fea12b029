//! Configurations of rustls that follow a source of credentials: what was renewed or withdrawn counts from the next handshake on.

mod resolver;
mod verifier;

use std::{fmt, sync::Arc};

use countersign_core::bundle::BundleSet;
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    sign::CertifiedKey,
    version::TLS13,
};

pub use verifier::SvidVerifier;

use crate::Authorizer;
use resolver::CurrentSvid;

/// Bundles as they are now.
pub trait Bundles: fmt::Debug + Send + Sync {
    /// The X.509 authorities by trust domain; `None`: nobody can be verified now.
    fn x509_bundles(&self) -> Option<Arc<BundleSet>>;
}

/// An X509-SVID as it is now.
pub trait Svid: fmt::Debug + Send + Sync {
    /// Chain and key; `None`: no handshake can be made now.
    fn certified_key(&self) -> Option<Arc<CertifiedKey>>;
}

/// Bundles that do not change.
#[derive(Clone, Debug)]
pub struct FixedBundles(pub Arc<BundleSet>);

impl Bundles for FixedBundles {
    fn x509_bundles(&self) -> Option<Arc<BundleSet>> {
        Some(Arc::clone(&self.0))
    }
}

/// For a server that authenticates its callers: TLS 1.3, without resumption, since a session must not outlive what was
/// authenticated in it.
///
/// # Errors
/// When the provider of cryptography lacks TLS 1.3.
pub fn mtls_server_config(
    svid: Arc<dyn Svid>,
    bundles: Arc<dyn Bundles>,
    callers: Authorizer,
) -> Result<ServerConfig, rustls::Error> {
    let provider = provider();
    let verifier = Arc::new(SvidVerifier::new(bundles, callers, &provider));
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    Ok(without_resumption(
        builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(CurrentSvid::new(svid))),
    ))
}

/// As [`mtls_server_config`], for callers that prove who they are by other means, such as a JWT-SVID, and have no certificate.
///
/// # Errors
/// When the provider of cryptography lacks TLS 1.3.
pub fn tls_server_config(svid: Arc<dyn Svid>) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    Ok(without_resumption(builder.with_no_client_auth().with_cert_resolver(Arc::new(CurrentSvid::new(svid)))))
}

/// For a client that authenticates itself and the server that it calls: by the server's id, whatever name or address it was called
/// by. TLS 1.3, without resumption.
///
/// # Errors
/// When the provider of cryptography lacks TLS 1.3.
pub fn mtls_client_config(
    svid: Arc<dyn Svid>,
    bundles: Arc<dyn Bundles>,
    servers: Authorizer,
) -> Result<ClientConfig, rustls::Error> {
    let provider = provider();
    let verifier = Arc::new(SvidVerifier::new(bundles, servers, &provider));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_client_cert_resolver(Arc::new(CurrentSvid::new(svid)));
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// As [`mtls_client_config`], for a client that proves who it is by other means, such as a JWT-SVID.
///
/// # Errors
/// When the provider of cryptography lacks TLS 1.3.
pub fn tls_client_config(bundles: Arc<dyn Bundles>, servers: Authorizer) -> Result<ClientConfig, rustls::Error> {
    let provider = provider();
    let verifier = Arc::new(SvidVerifier::new(bundles, servers, &provider));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// Named, so that none has to be installed for the process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
