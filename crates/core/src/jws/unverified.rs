//! What a token says of itself, for people who ask what they have. Nothing of it is verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{MAX_TOKEN_LENGTH, read_object};

/// Header and claims of a token in compact form (RFC 7515, section 7.1). Whoever made it chose every value. The signature is left
/// out: without it the token authenticates nobody.
#[derive(Clone, Debug, PartialEq)]
pub struct UnverifiedToken {
    /// The header's members.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
}

/// Why a text is not a token in compact form. Never holds the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAToken {
    /// Longer than 16 KiB.
    #[error("it has {0} bytes, more than the {MAX_TOKEN_LENGTH} that a token may have")]
    TooLong(usize),
    /// Not three parts.
    #[error("it has {0} parts separated by '.'; a signed token has three")]
    Parts(usize),
    /// A part is not in base64url.
    #[error("its {part} is not base64url without padding, from byte {position} of the token on")]
    Encoding {
        /// Which.
        part: &'static str,
        /// Of the first wrong byte, from the beginning of the token.
        position: usize,
    },
    /// A part is not a JSON object.
    #[error("its {part} is not a JSON object in UTF-8")]
    Object {
        /// Which.
        part: &'static str,
    },
}

impl UnverifiedToken {
    /// Reads a token.
    ///
    /// # Errors
    /// When it is not in compact form. Which rules of its kind it breaks, [`jwt_svid_faults`](crate::jwt::jwt_svid_faults) and
    /// [`wit_svid_faults`](crate::wit::wit_svid_faults) say.
    pub fn parse(token: &str) -> Result<Self, NotAToken> {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(NotAToken::TooLong(token.len()));
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts.as_slice() else { return Err(NotAToken::Parts(parts.len())) };
        decode("signature", signature, header.len() + claims.len() + 2)?;
        Ok(Self {
            header: object("header", &decode("header", header, 0)?)?,
            claims: object("payload", &decode("payload", claims, header.len() + 1)?)?,
        })
    }
}

fn decode(part: &'static str, text: &str, from: usize) -> Result<Vec<u8>, NotAToken> {
    URL_SAFE_NO_PAD.decode(text).map_err(|error| {
        let within = match error {
            base64::DecodeError::InvalidByte(position, _) | base64::DecodeError::InvalidLastSymbol(position, _) => {
                position
            }
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
        };
        NotAToken::Encoding { part, position: from + within }
    })
}

fn object(part: &'static str, json: &[u8]) -> Result<Map<String, Value>, NotAToken> {
    read_object(json).ok_or(NotAToken::Object { part })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn what_it_says_is_read_whether_or_not_it_keeps_the_rules() {
        let read = UnverifiedToken::parse(&token(r#"{"alg":"none","x":1}"#, r#"{"sub":"joe"}"#)).unwrap();
        assert_eq!((read.header["alg"].as_str(), read.claims["sub"].as_str()), (Some("none"), Some("joe")));
    }

    #[test]
    fn what_is_no_token_is_refused_with_the_place() {
        assert_eq!(UnverifiedToken::parse("a.b"), Err(NotAToken::Parts(2)));
        assert_eq!(UnverifiedToken::parse("e30.e3+.c2ln"), Err(NotAToken::Encoding { part: "payload", position: 6 }));
        assert_eq!(UnverifiedToken::parse(&token("[]", "{}")), Err(NotAToken::Object { part: "header" }));
        assert_eq!(UnverifiedToken::parse(&token("{}", "7")), Err(NotAToken::Object { part: "payload" }));
        let long = "a".repeat(MAX_TOKEN_LENGTH + 1);
        assert_eq!(UnverifiedToken::parse(&long), Err(NotAToken::TooLong(long.len())));
    }
}
