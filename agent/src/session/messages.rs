//! The messages a session sends. Each that needs the service account token carries the newest one.

use countersign_core::csr::{Csr, CsrError};
use countersign_core::id::SpiffeId;
use countersign_core::key::{KeyError, KeyType, PrivateKey};
use countersign_proto::issuer::v1::session_request::Kind;
use countersign_proto::issuer::v1::{
    Ack, BundleSequence, HeldSvid, Hello, JwtRequest, Receipt, SessionRequest, TokenRefresh, WitRequest, X509Request,
};
use countersign_proto::issuer::{ACK, RECEIPT};
use jiff::Timestamp;

use crate::token::Token;

/// What this agent can do beyond version 1 of the protocol. `move`: ended with UNAVAILABLE and `retry-after-ms`, it reconnects
/// at that time on a new connection and repeats the requests that were not answered. [`ACK`]: it acknowledges each State once
/// that is in effect. [`RECEIPT`]: it says what its workload can use, whenever that changes.
const CAPABILITIES: [&str; 3] = ["move", ACK, RECEIPT];

/// A key or its request could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("cannot make a key: {0}")]
    Key(#[from] KeyError),
    #[error("cannot make a certificate signing request: {0}")]
    Csr(#[from] CsrError),
}

/// A new key and the request for its certificate; without `id` for the default identity.
pub(super) fn x509_request(
    request_id: u64,
    id: Option<&SpiffeId>,
    token: &Token,
) -> Result<(PrivateKey, X509Request), RequestError> {
    let key = PrivateKey::generate(KeyType::EcP256)?;
    let csr = Csr::create(&key)?;
    let spiffe_id = id.map(ToString::to_string).unwrap_or_default();
    Ok((key, X509Request { id: request_id, csr, spiffe_id, token: token.compact().to_owned() }))
}

/// The first message of a stream.
pub(super) fn hello(session: &str, token: &Token, x509: Option<X509Request>) -> SessionRequest {
    message(Kind::Hello(Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: CAPABILITIES.iter().map(|&name| name.to_owned()).collect(),
        token: token.compact().to_owned(),
        session: session.to_owned(),
        x509,
    }))
}

/// The request for a JWT-SVID.
pub(super) fn jwt_request(request_id: u64, id: &SpiffeId, audiences: &[String], token: &Token) -> SessionRequest {
    message(Kind::Jwt(JwtRequest {
        id: request_id,
        audiences: audiences.to_vec(),
        spiffe_id: id.to_string(),
        token: token.compact().to_owned(),
    }))
}

/// A new key and the request for the WIT-SVID that is bound to it.
pub(super) fn wit_request(
    request_id: u64,
    id: &SpiffeId,
    token: &Token,
) -> Result<(PrivateKey, SessionRequest), RequestError> {
    let key = PrivateKey::generate(KeyType::EcP256)?;
    let csr = Csr::create(&key)?;
    let token = token.compact().to_owned();
    Ok((key, message(Kind::Wit(WitRequest { id: request_id, csr, spiffe_id: id.to_string(), token }))))
}

/// A newer service account token, which extends the lifetime of the stream.
pub(super) fn token_refresh(token: &Token) -> SessionRequest {
    message(Kind::TokenRefresh(TokenRefresh { token: token.compact().to_owned() }))
}

/// The State of `generation` is in effect, with bundles of these sequences.
pub(super) fn ack(generation: u64, sequences: Vec<BundleSequence>) -> SessionRequest {
    message(Kind::Ack(Ack { generation, sequences }))
}

/// What the workload can use at `now`.
pub(super) fn receipt(svids: Vec<HeldSvid>, now: Timestamp) -> SessionRequest {
    message(Kind::Receipt(Receipt { svids, clock_ms: now.as_millisecond() }))
}

/// A message of that kind.
pub(super) fn message(kind: Kind) -> SessionRequest {
    SessionRequest { kind: Some(kind) }
}
