//! The pod's service account token, read again whenever it is used: the kubelet replaces the file at 80 % of the token's
//! lifetime. The claims are read without verification, for timing only; the issuer verifies them.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{Timestamp, ToSpan};
use zeroize::Zeroizing;

/// The issuer refuses longer ones.
const MAX_TOKEN: u64 = 16 * 1024;
/// How often the file is read again once the token in use is due for replacement.
const REREAD_INTERVAL: Duration = Duration::from_secs(10);

/// Why there is no usable token. Never contains any part of it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the service account token {path}: {source}; is the volume countersign-token mounted?")]
    Unreadable {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The content is not a token.
    #[error("{path} holds no service account token: {why}")]
    NotAToken {
        /// The file.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// The file with the token.
#[derive(Debug, Clone)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// The token at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn read(&self) -> Result<Token, TokenError> {
        let text = read_limited(&self.path)
            .map_err(|source| TokenError::Unreadable { path: self.path.display().to_string(), source })?;
        Token::parse(&text).map_err(|why| TokenError::NotAToken { path: self.path.display().to_string(), why })
    }
}

/// A token, and the times it claims.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    compact: Zeroizing<String>,
    issued_at: Option<Timestamp>,
    expires_at: Timestamp,
}

impl Token {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let compact = text.trim();
        if compact.len() as u64 > MAX_TOKEN {
            return Err("it is longer than 16 KiB");
        }
        let mut parts = compact.split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err("it is not of three parts");
        };
        let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).map_err(|_| "its payload is not base64url")?);
        let claims: serde_json::Value = serde_json::from_slice(&payload).map_err(|_| "its payload is not JSON")?;
        let time = |claim: &str| claims.get(claim)?.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok());
        Ok(Self {
            compact: Zeroizing::new(compact.to_owned()),
            issued_at: time("iat"),
            expires_at: time("exp").ok_or("it has no expiry")?,
        })
    }

    /// JWS compact serialization, as sent to the issuer.
    pub fn compact(&self) -> &str {
        &self.compact
    }

    /// Its expiry.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// When to read the file again for its successor: from 80 % of its lifetime on, every ten seconds.
    pub fn reread_at(&self, now: Timestamp) -> Timestamp {
        let issued_at = self.issued_at.unwrap_or(now);
        let lifetime = self.expires_at.as_second().saturating_sub(issued_at.as_second()).max(0);
        let due = issued_at.checked_add((lifetime / 5 * 4).seconds()).unwrap_or(self.expires_at);
        due.max(now.checked_add(REREAD_INTERVAL).unwrap_or(now))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

fn read_limited(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    std::fs::File::open(path)?.take(MAX_TOKEN + 2).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jiff::Timestamp;

    use super::{Token, TokenFile};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn is_reread_from_80_percent_of_its_life() {
        let token = Token::parse(&token(r#"{"iat":1000,"exp":2000}"#)).unwrap();
        assert_eq!(token.reread_at(at(1000)), at(1800));
        assert_eq!(token.reread_at(at(1795)), at(1805));
        assert_eq!(token.reread_at(at(1900)), at(1910));
    }

    #[test]
    fn a_replaced_file_is_seen_at_the_next_reading() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let file = TokenFile::new(&path);
        std::fs::write(&path, token(r#"{"iat":1,"exp":2}"#) + "\n").unwrap();
        assert_eq!(file.read().unwrap().expires_at(), at(2));
        std::fs::write(&path, token(r#"{"iat":1,"exp":3}"#)).unwrap();
        assert_eq!(file.read().unwrap().expires_at(), at(3));
    }

    // R87
    #[test]
    fn what_is_no_token_is_refused_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        for text in ["secret", "a.b", "a.!.c", &token("{}"), &token("secret"), &"s".repeat(17_000)] {
            std::fs::write(&path, text).unwrap();
            let error = TokenFile::new(&path).read().unwrap_err();
            assert!(error.to_string().contains("holds no service account token"), "{error}");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
        assert!(TokenFile::new("/nowhere/token").read().unwrap_err().to_string().contains("/nowhere/token"));
        let token = Token::parse(&token(r#"{"exp":2,"sub":"c2VjcmV0"}"#)).unwrap();
        let shown = format!("{token:?}");
        assert!(token.compact().split('.').all(|part| !shown.contains(part)), "{shown}");
    }
}
