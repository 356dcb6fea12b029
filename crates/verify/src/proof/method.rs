//! How a caller was authenticated.

use std::{fmt, str::FromStr};

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// By the X509-SVID of the connection.
    Mtls,
    /// By a JWT-SVID, a bearer token until it expires.
    JwtSvid,
    /// By a Workload Proof Token (draft-ietf-wimse-wpt-02), which binds neither method nor query nor body.
    Wpt,
    /// By an HTTP message signature (draft-ietf-wimse-http-signature-08) over method, path, query and body.
    HttpSignature,
}

/// A text names no method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not one of mtls, jwt-svid, wpt, http-signature")]
pub struct MethodError {
    /// What was given.
    pub text: String,
}

impl Method {
    /// `mtls`, `jwt-svid`, `wpt` or `http-signature`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::JwtSvid => "jwt-svid",
            Self::Wpt => "wpt",
            Self::HttpSignature => "http-signature",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Method {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Mtls, Self::JwtSvid, Self::Wpt, Self::HttpSignature];
        all.into_iter().find(|method| method.as_str() == text).ok_or_else(|| MethodError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::Method;

    #[test]
    fn a_method_is_read_as_it_is_written() {
        for method in [Method::Mtls, Method::JwtSvid, Method::Wpt, Method::HttpSignature] {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        assert!("WPT".parse::<Method>().is_err());
    }
}
