//! The messages a session sends. Each that needs the service account token carries the one read for it.

use countersign_core::csr::{Csr, CsrError};
use countersign_core::id::SpiffeId;
use countersign_core::key::{KeyError, KeyType, PrivateKey};
use countersign_proto::issuer::v1::session_request::Kind;
use countersign_proto::issuer::v1::{Hello, JwtRequest, SessionRequest, TokenRefresh, X509Request};

use crate::token::Token;

/// What this agent can do beyond version 1 of the protocol.
const CAPABILITIES: [&str; 1] = [
    // Ended with UNAVAILABLE and `retry-after-ms`, it comes back at that time on a new connection, and asks again for what
    // was not answered.
    "move",
];

/// A key or its request could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error("cannot make a key: {0}")]
    Key(#[from] KeyError),
    #[error("cannot make a certificate signing request: {0}")]
    Csr(#[from] CsrError),
}

/// A fresh key and the request for its certificate.
pub(super) fn x509(number: u64, id: Option<&SpiffeId>, token: &Token) -> Result<(PrivateKey, X509Request), MakeError> {
    let key = PrivateKey::generate(KeyType::EcP256)?;
    let csr = Csr::create(&key)?;
    let spiffe_id = id.map(ToString::to_string).unwrap_or_default();
    Ok((key, X509Request { id: number, csr, spiffe_id, token: token.compact().to_owned() }))
}

pub(super) fn hello(session: &str, token: &Token, x509: Option<X509Request>) -> SessionRequest {
    message(Kind::Hello(Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: CAPABILITIES.iter().map(|&name| name.to_owned()).collect(),
        token: token.compact().to_owned(),
        session: session.to_owned(),
        x509,
    }))
}

pub(super) fn jwt(number: u64, id: &SpiffeId, audiences: &[String], token: &Token) -> SessionRequest {
    message(Kind::Jwt(JwtRequest {
        id: number,
        audiences: audiences.to_vec(),
        spiffe_id: id.to_string(),
        token: token.compact().to_owned(),
    }))
}

pub(super) fn refresh(token: &Token) -> SessionRequest {
    message(Kind::TokenRefresh(TokenRefresh { token: token.compact().to_owned() }))
}

pub(super) fn message(kind: Kind) -> SessionRequest {
    SessionRequest { kind: Some(kind) }
}
