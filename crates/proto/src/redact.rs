//! `Debug` for the messages that hold a private key or a token: enough to follow a conversation, nothing to steal.

use std::fmt::{Debug, Formatter, Result};

use crate::issuer::v1::{Hello, JwtRequest, JwtResponse, TokenRefresh, WitRequest, WitResponse, X509Request};
use crate::workload::{Jwtsvid, ValidateJwtsvidRequest, Witsvid, X509svid};

/// Stands where a secret would be.
const REDACTED: &str = "[redacted]";

impl Debug for X509svid {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("X509svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("x509_svid", &Bytes(self.x509_svid.len()))
            .field("x509_svid_key", &REDACTED)
            .field("bundle", &Bytes(self.bundle.len()))
            .field("hint", &self.hint)
            .finish()
    }
}

impl Debug for Jwtsvid {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Jwtsvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("svid", &REDACTED)
            .field("hint", &self.hint)
            .finish()
    }
}

impl Debug for ValidateJwtsvidRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("ValidateJwtsvidRequest").field("audience", &self.audience).field("svid", &REDACTED).finish()
    }
}

impl Debug for Hello {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("capabilities", &self.capabilities)
            .field("token", &REDACTED)
            .field("session", &self.session)
            .field("x509", &self.x509)
            .finish()
    }
}

impl Debug for TokenRefresh {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("TokenRefresh").field("token", &REDACTED).finish()
    }
}

impl Debug for X509Request {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("X509Request")
            .field("id", &self.id)
            .field("csr", &Bytes(self.csr.len()))
            .field("spiffe_id", &self.spiffe_id)
            .field("token", &REDACTED)
            .finish()
    }
}

impl Debug for JwtRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("JwtRequest")
            .field("id", &self.id)
            .field("audiences", &self.audiences)
            .field("spiffe_id", &self.spiffe_id)
            .field("token", &REDACTED)
            .finish()
    }
}

impl Debug for JwtResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("JwtResponse")
            .field("id", &self.id)
            .field("spiffe_id", &self.spiffe_id)
            .field("token", &REDACTED)
            .field("refusal", &self.refusal)
            .finish()
    }
}

impl Debug for WitRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("WitRequest")
            .field("id", &self.id)
            .field("csr", &Bytes(self.csr.len()))
            .field("spiffe_id", &self.spiffe_id)
            .field("token", &REDACTED)
            .finish()
    }
}

impl Debug for WitResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("WitResponse")
            .field("id", &self.id)
            .field("spiffe_id", &self.spiffe_id)
            .field("token", &REDACTED)
            .field("refusal", &self.refusal)
            .finish()
    }
}

impl Debug for Witsvid {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Witsvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("wit_svid", &REDACTED)
            .field("wit_svid_key", &REDACTED)
            .field("hint", &self.hint)
            .finish()
    }
}

/// A length instead of the bytes: certificates are public, and only noise in a log.
struct Bytes(usize);

impl Debug for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::v1::{SessionRequest, SessionResponse, session_request, session_response};
    use crate::workload::{JwtsvidResponse, X509svidResponse};

    const SECRET: &str = "eyJzZWNyZXQ";

    /// What `Debug` shows of a message: neither the secret nor its bytes as decimal numbers.
    fn assert_hidden(message: &impl Debug) {
        let text = format!("{message:?} {message:#?}");
        assert!(!text.contains(SECRET), "{text}");
        assert!(!text.contains("101, 121, 74"), "{text}");
    }

    fn secret() -> String {
        SECRET.to_owned()
    }

    // R87
    #[test]
    fn debug_of_workload_api_messages_shows_no_key_and_no_token() {
        let svid = X509svid { x509_svid_key: SECRET.into(), ..Default::default() };
        assert_hidden(&svid);
        assert_hidden(&X509svidResponse { svids: vec![svid], ..Default::default() });
        let jwt = Jwtsvid { svid: secret(), ..Default::default() };
        assert_hidden(&jwt);
        assert_hidden(&JwtsvidResponse { svids: vec![jwt] });
        assert_hidden(&ValidateJwtsvidRequest { svid: secret(), ..Default::default() });
        assert_hidden(&Witsvid { wit_svid: secret(), ..Default::default() });
        assert_hidden(&Witsvid { wit_svid_key: secret(), ..Default::default() });
    }

    // R87
    #[test]
    fn debug_of_issuer_messages_shows_no_token() {
        let x509 = X509Request { token: secret(), ..Default::default() };
        let hello = Hello { token: secret(), x509: Some(x509.clone()), ..Default::default() };
        let jwt = JwtRequest { token: secret(), ..Default::default() };
        for kind in [
            session_request::Kind::Hello(hello),
            session_request::Kind::TokenRefresh(TokenRefresh { token: secret() }),
            session_request::Kind::X509(x509),
            session_request::Kind::Jwt(jwt),
            session_request::Kind::Wit(WitRequest { token: secret(), ..Default::default() }),
        ] {
            assert_hidden(&SessionRequest { kind: Some(kind) });
        }
        let response = JwtResponse { token: secret(), ..Default::default() };
        assert_hidden(&SessionResponse { kind: Some(session_response::Kind::Jwt(response)) });
        let response = WitResponse { token: secret(), ..Default::default() };
        assert_hidden(&SessionResponse { kind: Some(session_response::Kind::Wit(response)) });
    }
}
