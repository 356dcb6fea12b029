//! Servers' identities in responses of reqwest.

use rustls::pki_types::CertificateDer;

use crate::PeerIdentity;

impl PeerIdentity {
    /// The server that sent this response. The client must be built with `tls_info(true)`, and with a configuration of this crate:
    /// `use_preconfigured_tls(source.mtls_client_config(servers)?)`. `None` where it was not asked for `tls_info`.
    #[must_use]
    pub fn of_response(response: &reqwest::Response) -> Option<Self> {
        let info = response.extensions().get::<reqwest::tls::TlsInfo>()?;
        Self::of_certificates(&[CertificateDer::from(info.peer_certificate()?)])
    }
}
