//! The peer of a connection: who it is, or why it was refused.

use std::{fmt, io};

use countersign_core::{
    id::SpiffeId,
    x509::{X509SvidError, leaf_id},
};
use rustls::{CertificateError, CommonState, pki_types::CertificateDer};

/// Who is on the other side of a connection, by the X509-SVID that the handshake verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    id: SpiffeId,
}

/// Why a peer's certificate was refused. The peer does not learn the reason: every refusal of a certificate is the same TLS alert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Its certificate is not an X509-SVID that is trusted here.
    #[error("the peer's X509-SVID is refused: {0}")]
    Svid(#[from] X509SvidError),
    /// The certificate is that of an id which is not accepted. That the peer holds its key was not proven yet: whoever was called by
    /// this id has its certificate too.
    #[error("the peer presents the certificate of {id}, which is not accepted here")]
    NotAccepted {
        /// The id in the certificate.
        id: SpiffeId,
    },
    /// There are no bundles yet, or no longer, so that nobody can be verified.
    #[error("the peer cannot be verified: there are no bundles now")]
    NoBundles,
}

impl PeerIdentity {
    /// The peer of a connection whose handshake is complete and was configured by this crate. `None` where it had no certificate.
    ///
    /// The certificate is not verified again: of a connection with another verifier this would say what the peer claims.
    #[must_use]
    pub fn of(connection: &CommonState) -> Option<Self> {
        Self::of_certificates(connection.peer_certificates()?)
    }

    /// As [`Self::of`], of the chain that the handshake verified, leaf first.
    #[must_use]
    pub(crate) fn of_certificates(chain: &[CertificateDer<'_>]) -> Option<Self> {
        leaf_id(chain.first()?).ok().map(|id| Self { id })
    }

    /// Its SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl PeerError {
    /// Why a handshake refused the peer, if the peer was the reason why it failed.
    #[must_use]
    pub fn of(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
            _ => None,
        }
    }

    /// As [`Self::of`], of an error that may have it as its source: of a handshake over a socket, of a client for HTTP or gRPC.
    #[must_use]
    pub fn within<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref().or_else(|| error.downcast_ref().and_then(Self::of)) {
                return Some(found);
            }
            // An error of I/O does not name what it wraps as its source, but the source of that.
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match wrapped {
                Some(wrapped) => Some(wrapped as &(dyn std::error::Error + 'static)),
                None => error.source(),
            };
        }
        None
    }
}

impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        let error = rustls::OtherError(std::sync::Arc::new(error));
        Self::InvalidCertificate(CertificateError::Other(error))
    }
}
