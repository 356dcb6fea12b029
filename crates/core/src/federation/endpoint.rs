//! Where the bundle of a remote trust domain is served, and how that endpoint is authenticated (SPIFFE Federation, section 5).

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;
use crate::bundle::BundleFormat;
use crate::id::{SpiffeId, TrustDomain};

/// The longest URL of an endpoint, in bytes.
pub const MAX_URL_LENGTH: usize = 2048;

/// A bundle endpoint: URL and profile. They are configured and never inferred from each other (SPIFFE Federation, sections
/// 5.1 and 7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub url: EndpointUrl,
    /// How it is authenticated.
    pub profile: Profile,
}

/// How an endpoint is authenticated (SPIFFE Federation, section 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// By certificate authorities that vouch for the host in the URL (section 5.2.1).
    HttpsWeb {
        /// The certificates of these authorities, ASN.1 DER. Empty: the public ones.
        roots: Vec<Vec<u8>>,
    },
    /// WIMSE Trust Domain Discovery (draft-schwenkschuster-wimse-trust-domain-discovery-00): the URL is that of the metadata, at
    /// the host of the trust domain's name, and these name the trust bundle. Both are authenticated as by `https_web`.
    WimseDiscovery {
        /// As those of `https_web`.
        roots: Vec<Vec<u8>>,
    },
    /// By an X509-SVID (section 5.2.2).
    HttpsSpiffe {
        /// The endpoint's id. It may be of another trust domain than the bundle: then the endpoint is not self-serving, and
        /// the bundle of that domain verifies it.
        id: SpiffeId,
    },
}

/// An https URL without user information (SPIFFE Federation, sections 5.2.1.1 and 5.2.2.1), of at most [`MAX_URL_LENGTH`] bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl(String);

/// Why a text is not the URL of a bundle endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointUrlError {
    /// Longer than [`MAX_URL_LENGTH`].
    #[error("URL of {length} bytes is longer than {MAX_URL_LENGTH}")]
    TooLong {
        /// Of the URL, in bytes.
        length: usize,
    },
    /// Does not begin with `https://`.
    #[error("URL does not begin with https:// (in lower case)")]
    Scheme,
    /// A character that no URL has.
    #[error("URL has a character at byte {position} that must be percent-encoded")]
    Character {
        /// Its offset from the beginning, in bytes.
        position: usize,
    },
    /// `user@host`, with or without a password.
    #[error("URL has user information before the host; remove everything up to '@'")]
    UserInfo,
    /// Nothing stands where the host should be.
    #[error("URL has no host")]
    NoHost,
}

impl Endpoint {
    /// Whether `id` of `https_spiffe` is in the trust domain whose bundle is fetched: then the newest bundle of that domain
    /// verifies the endpoint (SPIFFE Federation, section 5.2.2.4).
    pub fn is_self_serving(&self, trust_domain: &TrustDomain) -> bool {
        matches!(&self.profile, Profile::HttpsSpiffe { id } if id.trust_domain() == trust_domain)
    }

    /// Differs as soon as anything of the endpoint does.
    pub(super) fn digest(&self) -> Digest {
        let verified_by = match &self.profile {
            Profile::HttpsWeb { roots } | Profile::WimseDiscovery { roots } => {
                roots.iter().map(|root| Digest::of(root).to_string()).collect()
            }
            Profile::HttpsSpiffe { id } => id.to_string(),
        };
        // None of the three can hold a line feed.
        Digest::of(format!("{}\n{}\n{verified_by}", self.url, self.profile.name()).as_bytes())
    }
}

impl Profile {
    /// As it is written in resources and specifications: `https_web`, `https_spiffe` or `wimse_discovery`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::HttpsWeb { .. } => "https_web",
            Self::HttpsSpiffe { .. } => "https_spiffe",
            Self::WimseDiscovery { .. } => "wimse_discovery",
        }
    }

    /// What is served there.
    pub(super) const fn format(&self) -> BundleFormat {
        match self {
            Self::HttpsWeb { .. } | Self::HttpsSpiffe { .. } => BundleFormat::Spiffe,
            Self::WimseDiscovery { .. } => BundleFormat::Wimse,
        }
    }
}

impl EndpointUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointUrl {
    type Err = EndpointUrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if url.len() > MAX_URL_LENGTH {
            return Err(EndpointUrlError::TooLong { length: url.len() });
        }
        let rest = url.strip_prefix("https://").ok_or(EndpointUrlError::Scheme)?;
        if let Some(position) = url.bytes().position(|byte| !is_allowed(byte)) {
            return Err(EndpointUrlError::Character { position });
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(EndpointUrlError::UserInfo);
        }
        match authority.split(':').next() {
            None | Some("") => Err(EndpointUrlError::NoHost),
            Some(_) => Ok(Self(url.to_owned())),
        }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointUrl({})", self.0)
    }
}

/// RFC 3986, section 2. A backslash is none of them: some readers take it for a slash.
fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_https_url_with_a_host() {
        for url in [
            "https://example.com",
            "https://example.com/production/bundle.json?a=b@c#d",
            "https://10.0.0.1:8443/",
            "https://[2001:db8::1]:8443/%20",
        ] {
            assert_eq!(url.parse::<EndpointUrl>().map(|url| url.to_string()), Ok(url.to_owned()));
        }
        for (url, error) in [
            ("http://example.com", EndpointUrlError::Scheme),
            ("HTTPS://example.com", EndpointUrlError::Scheme),
            ("example.com", EndpointUrlError::Scheme),
            ("", EndpointUrlError::Scheme),
            ("https://me@example.com/", EndpointUrlError::UserInfo),
            ("https://me:secret@example.com/", EndpointUrlError::UserInfo),
            ("https://", EndpointUrlError::NoHost),
            ("https:///bundle", EndpointUrlError::NoHost),
            ("https://:443/", EndpointUrlError::NoHost),
            ("https://?a", EndpointUrlError::NoHost),
            ("https://a b", EndpointUrlError::Character { position: 9 }),
            ("https://a\\@b", EndpointUrlError::Character { position: 9 }),
            ("https://a\n", EndpointUrlError::Character { position: 9 }),
            ("https://\u{e9}.example", EndpointUrlError::Character { position: 8 }),
        ] {
            assert_eq!(url.parse::<EndpointUrl>(), Err(error), "{url}");
        }
    }

    #[test]
    fn a_url_has_a_longest_length() {
        let url = |length: usize| format!("https://{}", "a".repeat(length - 8)).parse::<EndpointUrl>();
        assert!(url(MAX_URL_LENGTH).is_ok());
        assert_eq!(url(MAX_URL_LENGTH + 1), Err(EndpointUrlError::TooLong { length: MAX_URL_LENGTH + 1 }));
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        let error = "https://me:secret@example.com/".parse::<EndpointUrl>().unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn an_endpoint_serves_itself_if_its_id_is_in_the_domain_of_the_bundle() {
        let endpoint = |profile| Endpoint { url: "https://example.com".parse().unwrap(), profile };
        let spiffe = |id: &str| endpoint(Profile::HttpsSpiffe { id: id.parse().unwrap() });
        let domain: TrustDomain = "prod.example.com".parse().unwrap();
        assert!(spiffe("spiffe://prod.example.com/bundles").is_self_serving(&domain));
        assert!(!spiffe("spiffe://example.com/bundles").is_self_serving(&domain));
        assert!(!endpoint(Profile::HttpsWeb { roots: Vec::new() }).is_self_serving(&domain));
    }

    #[test]
    fn another_url_profile_id_or_root_is_another_endpoint() {
        let endpoint = |url: &str, profile| Endpoint { url: url.parse().unwrap(), profile }.digest();
        let spiffe = |id: &str| Profile::HttpsSpiffe { id: id.parse().unwrap() };
        let web = |roots: &[&[u8]]| Profile::HttpsWeb { roots: roots.iter().map(|root| root.to_vec()).collect() };
        let all = [
            endpoint("https://a", web(&[])),
            endpoint("https://b", web(&[])),
            endpoint("https://a", web(&[b"x"])),
            endpoint("https://a", web(&[b"x", b"y"])),
            endpoint("https://a", web(&[b"xy"])),
            endpoint("https://a", web(&[b""])),
            endpoint("https://a", Profile::WimseDiscovery { roots: Vec::new() }),
            endpoint("https://a", spiffe("spiffe://a/x")),
            endpoint("https://a", spiffe("spiffe://a/y")),
        ];
        for (position, one) in all.iter().enumerate() {
            assert!(all.iter().skip(position + 1).all(|other| other != one));
        }
        assert_eq!(all[0], endpoint("https://a", web(&[])));
    }
}
