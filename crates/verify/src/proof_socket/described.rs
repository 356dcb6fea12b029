//! Messages as they are described to the agent: everything but the body.

use std::fmt;

use countersign_core::wimse::{Field, Request, Response};
use serde::{Deserialize, Serialize};

use super::BodyHash;

/// A request as it is sent, or as it was received. Its fields hold tokens: `Debug` shows none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestDescription {
    /// Case is significant.
    pub method: String,
    /// The path of its target, before percent-decoding.
    pub path: String,
    /// The query of its target, without `?`; empty where the target ends in `?`, and absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// `host:port` of its target: required of `CONNECT`, and where a signature covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Names in any case, and values, in their order; a field with several lines is several pairs.
    pub headers: Vec<(String, String)>,
    /// Absent where there is no body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<BodyHash>,
}

/// A response as it is sent, or as it was received.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseDescription {
    /// Three digits.
    pub status: u16,
    /// As [`RequestDescription::headers`].
    pub headers: Vec<(String, String)>,
    /// Absent where there is no body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<BodyHash>,
}

impl RequestDescription {
    /// Its fields, for [`Self::request`].
    #[must_use]
    pub fn fields(&self) -> Vec<Field<'_>> {
        fields(&self.headers)
    }

    /// The request, with its own [`Self::fields`], or with more.
    #[must_use]
    pub fn request<'a>(&'a self, fields: &'a [Field<'a>]) -> Request<'a> {
        let Self { method, path, query, authority, body_sha256, .. } = self;
        let (query, authority) = (query.as_deref(), authority.as_deref());
        Request { method, path, query, authority, fields, body: BodyHash::body(*body_sha256) }
    }
}

impl ResponseDescription {
    /// Its fields, for [`Self::response`].
    #[must_use]
    pub fn fields(&self) -> Vec<Field<'_>> {
        fields(&self.headers)
    }

    /// The response, with its own [`Self::fields`], or with more.
    #[must_use]
    pub fn response<'a>(&self, fields: &'a [Field<'a>]) -> Response<'a> {
        Response { status: self.status, fields, body: BodyHash::body(self.body_sha256) }
    }
}

fn fields(headers: &[(String, String)]) -> Vec<Field<'_>> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

impl fmt::Debug for RequestDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestDescription({:?} {:?}, {} headers)", self.method, self.path, self.headers.len())
    }
}

impl fmt::Debug for ResponseDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResponseDescription({}, {} headers)", self.status, self.headers.len())
    }
}
