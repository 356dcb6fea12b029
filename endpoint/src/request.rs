//! From a request's head to what is answered: a pure function over bytes that anybody may have sent.

use axum::http::StatusCode;

use crate::documents::{AtHost, Document, Documents};

/// The longest path that is looked at, in bytes; those of all documents are shorter.
pub const MAX_PATH_LENGTH: usize = 4096;

/// How the peer authenticated the server (SPIFFE Federation, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// By the SVID of an endpoint.
    Spiffe,
    /// By a certificate of the web.
    Web,
}

/// The parts of a request that matter.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Case-sensitive (RFC 9110, section 9.1).
    pub method: &'a str,
    /// The authority of the request's target: `:authority`, or that of an absolute URL. It comes before `Host` (RFC 9112,
    /// section 3.2.2; RFC 9113, section 8.3.1).
    pub authority: Option<&'a str>,
    /// The values of all fields `Host`.
    pub hosts: &'a [&'a [u8]],
    /// Without query.
    pub path: &'a str,
    /// The values of all fields `If-None-Match`.
    pub if_none_match: &'a [&'a [u8]],
}

/// The kind of document that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// A bundle document.
    Bundle,
    /// A discovery document.
    Configuration,
    /// A JWK set.
    Keys,
    /// Metadata of a trust domain.
    TrustDomainMetadata,
    /// A trust bundle of WIMSE.
    TrustBundle,
    /// None that there is.
    Unknown,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The document.
    Document(Route, &'a Document),
    /// The peer has the document already.
    NotModified(Route, &'a Document),
    /// None.
    Refused(Refusal),
}

/// Why there is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither GET nor HEAD.
    Method,
    /// Longer than [`MAX_PATH_LENGTH`].
    PathTooLong,
    /// There is not exactly one host, or it is malformed.
    Host,
    /// Nothing is at this path of this host.
    NotFound,
    /// The host names no trust domain.
    UnknownHost,
    /// Several trust domains have this issuer.
    Contradictory,
    /// Nothing was read yet.
    NotReady,
}

/// The answer to a request, over a port of `profile`.
#[must_use]
pub fn answer<'a>(documents: &'a Documents, profile: Profile, head: &Head<'_>) -> Answer<'a> {
    match find(documents, profile, head) {
        Ok((route, document)) if matches(head.if_none_match, &document.etag) => Answer::NotModified(route, document),
        Ok((route, document)) => Answer::Document(route, document),
        Err(refusal) => Answer::Refused(refusal),
    }
}

fn find<'a>(documents: &'a Documents, profile: Profile, head: &Head<'_>) -> Result<(Route, &'a Document), Refusal> {
    if !matches!(head.method, "GET" | "HEAD") {
        return Err(Refusal::Method);
    }
    if head.path.len() > MAX_PATH_LENGTH {
        return Err(Refusal::PathTooLong);
    }
    let host = host(head.authority, head.hosts).ok_or(Refusal::Host)?;
    if profile == Profile::Web {
        // The host must be the issuer's: a discovery document at another host is not the issuer's (OpenID Connect Discovery 1.0,
        // section 4.3). The port is not compared: behind a Service or a load balancer it is not the one of the URL, and it is the
        // name that the certificate authenticated.
        // The same holds for the metadata of a trust domain (WIMSE Trust Domain Discovery, draft 00, section 4).
        match documents.at_host(&host, head.path) {
            Some(AtHost::Configuration(document)) => return Ok((Route::Configuration, document)),
            Some(AtHost::Keys(document)) => return Ok((Route::Keys, document)),
            Some(AtHost::TrustDomainMetadata(document)) => return Ok((Route::TrustDomainMetadata, document)),
            Some(AtHost::TrustBundle(document)) => return Ok((Route::TrustBundle, document)),
            Some(AtHost::Contradictory) => return Err(Refusal::Contradictory),
            None => {}
        }
    }
    let name = match head.path.strip_prefix('/').ok_or(Refusal::NotFound)? {
        "" => at_root(documents, profile, &host).ok_or(Refusal::UnknownHost)?,
        name => name,
    };
    documents.bundle(name).map(|document| (Route::Bundle, document)).ok_or(Refusal::NotFound)
}

/// The trust domain of the root of `host`. Who calls by a name that stands for none gets that of the default identity, but not
/// where the name is all that the peer authenticated: once a trust domain is no longer published, its peers would be handed the
/// bundle of another one under its name.
fn at_root<'a>(documents: &'a Documents, profile: Profile, host: &'a str) -> Option<&'a str> {
    match (documents.named(host), profile) {
        (Some(named), _) => Some(named),
        (None, Profile::Spiffe) => documents.default_trust_domain(),
        (None, Profile::Web) => None,
    }
}

/// The host without port, in lower case and without a dot at its end; an IPv6 address in brackets. `None` when there is not
/// exactly one, or it is malformed (RFC 9112, section 3.2).
fn host(authority: Option<&str>, hosts: &[&[u8]]) -> Option<String> {
    let text = match (authority, hosts) {
        (Some(authority), [] | [_]) => authority,
        (None, [host]) => std::str::from_utf8(host).ok()?,
        _ => return None,
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => text.split_at_checked(literal.find(']')? + 2)?,
        None => text.split_at_checked(text.find(':').unwrap_or(text.len()))?,
    };
    let digits = if port.is_empty() { port } else { port.strip_prefix(':')? };
    if digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let (name, extra) = match host.strip_prefix('[') {
        Some(literal) => (literal.strip_suffix(']')?, ":"),
        None => (host, "-_"),
    };
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || extra.as_bytes().contains(&byte);
    (!name.is_empty() && name.bytes().all(is_allowed)).then(|| host.to_ascii_lowercase())
}

/// Whether one of the entity tags is `etag`, by weak comparison (RFC 9110, section 13.1.2). What is malformed matches nothing
/// from there on, so that the document is sent.
fn matches(fields: &[&[u8]], etag: &str) -> bool {
    fields.iter().any(|field| {
        let mut rest = field.trim_ascii();
        if rest == b"*" {
            return true;
        }
        loop {
            rest = rest.trim_ascii_start();
            rest = rest.strip_prefix(b"W/").unwrap_or(rest);
            let Some(end) = rest.strip_prefix(b"\"").and_then(|tag| tag.iter().position(|byte| *byte == b'"')) else {
                return false;
            };
            let Some((tag, after)) = rest.split_at_checked(end + 2) else {
                return false;
            };
            if tag == etag.as_bytes() {
                return true;
            }
            match after.trim_ascii_start().strip_prefix(b",") {
                Some(next) => rest = next,
                None => return false,
            }
        }
    })
}

impl Refusal {
    /// The status of the response.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::PathTooLong => StatusCode::URI_TOO_LONG,
            Self::Host => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::UnknownHost => StatusCode::NOT_FOUND,
            // Not 404, which says that nothing is to be here, and which caches keep.
            Self::Contradictory | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The text of the response.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Method => "use GET or HEAD\n",
            Self::PathTooLong => "the path is too long\n",
            Self::Host => "the request needs exactly one valid host\n",
            Self::NotFound => "nothing is published here\n",
            Self::UnknownHost => {
                "this host stands for no trust domain; ask for /<trust domain>, or map the host with --host\n"
            }
            Self::Contradictory => "several trust domains have this issuer, so that none is served\n",
            Self::NotReady => "nothing was read yet\n",
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
