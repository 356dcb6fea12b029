//! X.509 certificates: the authorities that sign, the SVIDs and server certificates they issue, and
//! the verification of SVIDs against bundles (X509-SVID; RFC 5280).

mod authority;
mod ca;
mod extensions;
mod fingerprint;
mod inspect;
mod issue;
mod signing;
mod verify;

pub use authority::X509Authority;
pub use ca::{CaCertificate, CaCertificateError};
pub use fingerprint::{Fingerprint, fingerprint};
pub use inspect::{CertificateClaims, NotACertificate};
pub use issue::{BACKDATE, IssueError, IssuedX509, LeafRequest, MAX_DNS_NAMES};
pub(crate) use signing::RcgenSigner;
pub use verify::{MAX_CHAIN_LENGTH, X509SvidError, leaf_faults, leaf_id, verify_x509_svid};

/// The longest certificate that is looked at, in bytes.
pub const MAX_CERTIFICATE_LENGTH: usize = 64 * 1024;
