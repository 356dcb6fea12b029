//! The certificate of each handshake: the one that is current then.

use std::sync::Arc;

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::Svid;

/// Presents the current X509-SVID. Without one, a server's handshake fails, and a client sends no certificate, which a server that
/// authenticates its callers refuses.
#[derive(Debug)]
pub(super) struct CurrentSvid(Arc<dyn Svid>);

impl CurrentSvid {
    pub(super) fn new(svid: Arc<dyn Svid>) -> Self {
        Self(svid)
    }
}

impl ResolvesServerCert for CurrentSvid {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.certified_key()
    }
}

impl ResolvesClientCert for CurrentSvid {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.certified_key()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
