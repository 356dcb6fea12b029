//! Hashes of bodies (RFC 9530).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sfv::ListEntry;

use super::structured::dictionary;
use super::{CONTENT_DIGEST_FIELD, SignatureError};
use crate::wimse::message::lines;
use crate::wimse::{Body, Field};

/// The algorithm that counts; others beside it do not (RFC 9530, section 2).
const ALGORITHM: &str = "sha-256";

/// Why the hash of a body does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DigestError {
    /// There is a body and no field.
    Missing,
    /// The field is no dictionary with a byte sequence `sha-256`.
    Malformed,
    /// It is the hash of another body.
    Mismatch,
}

/// The value of `Content-Digest` for `body`: its SHA-256.
pub fn content_digest(body: &[u8]) -> String {
    format!("{ALGORITHM}=:{}:", STANDARD.encode(digest(&SHA256, body)))
}

/// The value of `Content-Digest` for a body whose SHA-256 is `hash`.
pub fn content_digest_of_hash(hash: [u8; 32]) -> String {
    format!("{ALGORITHM}=:{}:", STANDARD.encode(hash))
}

/// The body as `Content-Digest` claims it to be: a message can be verified before its body has arrived, which must then be held against
/// the field by [`verify_content_digest`]. Empty where there is no field, or none that can be read.
pub fn claimed_body(fields: &[Field<'_>]) -> Body<'static> {
    let claimed = || -> Option<[u8; 32]> {
        let read = dictionary(fields, CONTENT_DIGEST_FIELD).ok()?;
        let Some(ListEntry::Item(item)) = read.get(ALGORITHM) else { return None };
        item.bare_item.as_byte_sequence()?.try_into().ok()
    };
    match claimed() {
        Some(hash) if digest(&SHA256, b"").as_ref() != hash => Body::Sha256(hash),
        _ => Body::Empty,
    }
}

/// Whether `body` is the one that `Content-Digest` claims; no body needs no field.
///
/// # Errors
/// When it is another, or the field is missing or cannot be read.
pub fn verify_content_digest(fields: &[Field<'_>], body: Body<'_>) -> Result<(), SignatureError> {
    Ok(check_digest(fields, body)?)
}

/// Whether `Content-Digest` is there for a body, and is its hash wherever it is there.
pub(super) fn check_digest(fields: &[Field<'_>], body: Body<'_>) -> Result<(), DigestError> {
    let hash = match body {
        Body::Empty => digest(&SHA256, b"").as_ref().to_vec(),
        Body::Bytes(bytes) => digest(&SHA256, bytes).as_ref().to_vec(),
        Body::Sha256(hash) => hash.to_vec(),
    };
    if lines(fields, CONTENT_DIGEST_FIELD).next().is_none() {
        return match body {
            Body::Empty | Body::Bytes([]) => Ok(()),
            Body::Bytes(_) | Body::Sha256(_) => Err(DigestError::Missing),
        };
    }
    let read = dictionary(fields, CONTENT_DIGEST_FIELD).map_err(|_| DigestError::Malformed)?;
    let Some(ListEntry::Item(item)) = read.get(ALGORITHM) else {
        return Err(DigestError::Malformed);
    };
    let claimed = item.bare_item.as_byte_sequence().ok_or(DigestError::Malformed)?;
    if claimed == hash { Ok(()) } else { Err(DigestError::Mismatch) }
}
