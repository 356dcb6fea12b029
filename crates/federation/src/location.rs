//! The URL that is called: the configured one, or where it redirects.

use countersign_core::federation::EndpointUrl;
use http::HeaderValue;
use http::uri::PathAndQuery;
use rustls::pki_types::ServerName;
use url::{Host, Url};

/// A URL of which everything is known that a call needs.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    url: Url,
    host: Host,
    server_name: ServerName<'static>,
    port: u16,
}

impl Location {
    /// `None`: its host is neither a name nor an address, or the port is none.
    pub(crate) fn new(url: &EndpointUrl) -> Option<Self> {
        let url = Url::parse(url.as_str()).ok()?;
        let host = url.host()?.to_owned();
        let server_name = match &host {
            Host::Domain(name) => ServerName::try_from(name.clone()).ok()?,
            Host::Ipv4(address) => ServerName::IpAddress((*address).into()),
            Host::Ipv6(address) => ServerName::IpAddress((*address).into()),
        };
        let port = url.port_or_known_default()?;
        Some(Self { url, host, server_name, port })
    }

    /// Where a `Location` header in an answer from here leads. `None`: nowhere, or to what could not be configured as the URL
    /// of an endpoint (SPIFFE Federation, sections 5.2.1.4 and 5.2.2.4).
    pub(crate) fn redirected(&self, to: &HeaderValue) -> Option<Self> {
        let url = self.url.join(to.to_str().ok()?).ok()?;
        Self::new(&url.as_str().parse().ok()?)
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What a certificate is verified for, and what is sent as SNI, if it is a name.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// The `Host` header: the host, and the port if it is not 443 (RFC 9110, section 7.2).
    pub(crate) fn authority(&self) -> &str {
        self.url.authority()
    }

    /// The target of the request (RFC 9112, section 3.2.1).
    pub(crate) fn path_and_query(&self) -> Option<PathAndQuery> {
        let query = self.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        PathAndQuery::try_from(format!("{}{query}", self.url.path())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(url: &str) -> Option<Location> {
        Location::new(&url.parse().unwrap())
    }

    #[test]
    fn a_request_names_host_port_and_path() {
        for (url, authority, port, target) in [
            ("https://example.com", "example.com", 443, "/"),
            ("https://example.com.", "example.com.", 443, "/"),
            ("https://bundle_endpoint.example", "bundle_endpoint.example", 443, "/"),
            ("https://Example.com:443/a?b=c#d", "example.com", 443, "/a?b=c"),
            ("https://example.com:8443/a/../b", "example.com:8443", 8443, "/b"),
            ("https://10.0.0.1/'!$&()*+,;=:@[]~", "10.0.0.1", 443, "/'!$&()*+,;=:@[]~"),
            ("https://[2001:db8::1]:8443/", "[2001:db8::1]:8443", 8443, "/"),
        ] {
            let location = location(url).unwrap();
            assert_eq!(location.authority(), authority, "{url}");
            assert_eq!(location.port(), port, "{url}");
            assert_eq!(location.path_and_query().unwrap().as_str(), target, "{url}");
        }
    }

    #[test]
    fn other_spellings_of_an_address_are_that_address() {
        for url in ["https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/"] {
            assert_eq!(location(url).unwrap().host(), &Host::<String>::Ipv4([127, 0, 0, 1].into()), "{url}");
        }
    }

    #[test]
    fn a_host_or_port_that_cannot_be_called_is_refused() {
        for url in [
            "https://a:99999/",
            "https://a:b/",
            "https://1.2.3.256/",
            "https://[::/",
            "https://a%00b/",
            "https://a..b/",
        ] {
            assert!(location(url).is_none(), "{url}");
        }
    }

    #[test]
    fn a_redirect_is_resolved_and_held_to_the_rules_of_endpoints() {
        let from = location("https://example.com:8443/a/b?c").unwrap();
        let to = |header: &[u8]| from.redirected(&HeaderValue::from_bytes(header).unwrap());
        for (header, url) in [
            ("https://other.example/x", "https://other.example/x"),
            ("HTTPS://other.example", "https://other.example/"),
            ("//other.example/x", "https://other.example/x"),
            ("/x", "https://example.com:8443/x"),
            ("x?y", "https://example.com:8443/a/x?y"),
            ("", "https://example.com:8443/a/b?c"),
        ] {
            assert_eq!(to(header.as_bytes()).unwrap().url.as_str(), url, "{header}");
        }
        for header in [
            "http://other.example/",
            "ftp://other.example/",
            "file:///etc/passwd",
            "data:,{}",
            "https://me@other.example/",
            "https://me:secret@other.example/",
            "https://",
            "//[",
            "/|",
        ] {
            assert!(to(header.as_bytes()).is_none(), "{header}");
        }
        assert!(to(b"/\xff").is_none());
        assert!(to(format!("/{}", "a".repeat(2048)).as_bytes()).is_none());
    }
}
