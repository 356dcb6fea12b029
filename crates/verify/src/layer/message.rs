//! Messages of `http` as proofs see them.

use bytes::Bytes;
use countersign_core::wimse::{self, Field};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::prover::MessageProof;

/// The head of a request.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

/// A field of a proof has a name or a value that no field has.
#[derive(Debug)]
pub(super) struct NotAField;

impl Head {
    pub(super) fn of(parts: &http::request::Parts) -> Self {
        Self { method: parts.method.clone(), uri: parts.uri.clone(), headers: parts.headers.clone() }
    }
}

/// The fields of a message.
pub(super) fn fields(headers: &HeaderMap) -> Vec<Field<'_>> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// A request with these fields, which are those of `headers`.
pub(super) fn request<'a>(
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    fields: &'a [Field<'a>],
    body: wimse::Body<'a>,
) -> wimse::Request<'a> {
    let (path, query) = (uri.path(), uri.query());
    wimse::Request { method: method.as_str(), path, query, authority: authority(uri, headers), fields, body }
}

/// A body that is in memory.
pub(super) fn body(bytes: &Bytes) -> wimse::Body<'_> {
    if bytes.is_empty() { wimse::Body::Empty } else { wimse::Body::Bytes(bytes) }
}

/// That of the target, or of the only `Host` (RFC 9421, section 2.2.3).
fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// Whether it is a message of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let is_grpc = |value: &HeaderValue| {
        let media_type = value.as_bytes().get(..16);
        media_type.is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
    };
    headers.get_all(header::CONTENT_TYPE).iter().any(is_grpc)
}

/// Adds the fields of a proof.
pub(super) fn add(proof: &MessageProof, headers: &mut HeaderMap) -> Result<(), NotAField> {
    for (name, value) in &proof.fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| NotAField)?;
        let mut value = HeaderValue::from_str(value).map_err(|_| NotAField)?;
        // Neither shown by `Debug` nor kept in tables of compression.
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(())
}
