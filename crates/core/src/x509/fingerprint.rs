//! The digest by which a certificate is named.

use aws_lc_rs::digest;

/// SHA-256.
pub type Fingerprint = [u8; 32];

/// Of a certificate (DER).
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> Fingerprint {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    fingerprint
}
