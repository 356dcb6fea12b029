//! OpenID Connect Discovery 1.0 for a trust domain whose JWT-SVIDs have an issuer: what relying parties that know OIDC and not
//! SPIFFE read to verify them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::Bundle;
use super::document::{JwkSet, json};
use crate::jwt::JwtVerificationKey;

/// The longest issuer URL, in bytes; that of a TrustDomain is shorter.
pub const MAX_ISSUER_LENGTH: usize = 2048;

/// Follows the issuer (OpenID Connect Discovery 1.0, section 4).
const CONFIGURATION: &str = "/.well-known/openid-configuration";
/// Follows the issuer; relying parties find it by the `jwks_uri` of the configuration.
const KEYS: &str = "/keys";
/// What is listed while a bundle has no JWT key: the list must not be empty, and holds this (OpenID Connect Discovery 1.0,
/// section 3).
const NO_KEY_ALGORITHM: &str = "RS256";

/// The issuer of a trust domain's JWT-SVIDs: `https://<host>[:<port>][/<path>]`, without query and fragment (OpenID Connect
/// Discovery 1.0, section 3).
#[derive(Clone, PartialEq, Eq)]
pub struct IssuerUrl {
    url: String,
    /// In lower case, without port.
    host: String,
    /// Empty, or with a slash at its begin and none at its end.
    path: String,
}

/// Why a text is not the URL of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerUrlError {
    /// Longer than [`MAX_ISSUER_LENGTH`].
    #[error("issuer of {length} bytes is longer than {MAX_ISSUER_LENGTH}")]
    TooLong {
        /// In bytes.
        length: usize,
    },
    /// Another scheme.
    #[error("issuer does not begin with https:// (in lower case)")]
    Scheme,
    /// A character that such a URL does not have, a query or a fragment among them.
    #[error("issuer has a character at byte {position} that is not one of a URL without query and fragment")]
    Character {
        /// In bytes.
        position: usize,
    },
    /// User information in front of the host.
    #[error("issuer has user information in front of its host")]
    UserInfo,
    /// A host that is neither a name nor an address.
    #[error("issuer has a host that is neither a DNS name nor an IP address (IPv6 in brackets)")]
    Host,
    /// No host.
    #[error("issuer has no host")]
    NoHost,
    /// A port that is none.
    #[error("issuer has a port that is not a number from 1 to 65535")]
    Port,
}

/// What OIDC needs of an issuer that hands no tokens out by itself. `authorization_endpoint` is left out: there is none, and
/// an invented one is a URL that somebody else may own. The API server's own discovery document has these members too.
#[derive(Serialize)]
struct OpenIdConfiguration<'a> {
    issuer: &'a str,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: BTreeSet<&'a str>,
}

impl IssuerUrl {
    /// As it was written, and as it is in the claim `iss`.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// The host, in lower case, without port and without a dot at its end; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path of the discovery document. A slash at the issuer's end is left out (OpenID Connect Discovery 1.0, section 4).
    pub fn configuration_path(&self) -> String {
        format!("{}{CONFIGURATION}", self.path)
    }

    /// The path of the keys.
    pub fn keys_path(&self) -> String {
        format!("{}{KEYS}", self.path)
    }

    fn keys_url(&self) -> String {
        format!("{}{KEYS}", self.url.strip_suffix('/').unwrap_or(&self.url))
    }
}

impl FromStr for IssuerUrl {
    type Err = IssuerUrlError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if url.len() > MAX_ISSUER_LENGTH {
            return Err(IssuerUrlError::TooLong { length: url.len() });
        }
        let rest = url.strip_prefix("https://").ok_or(IssuerUrlError::Scheme)?;
        if let Some(position) = url.bytes().position(|byte| !is_allowed(byte)) {
            return Err(IssuerUrlError::Character { position });
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err(IssuerUrlError::UserInfo);
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|literal| literal.split_once(']')) {
            Some((literal, port)) => (authority.get(..literal.len() + 2).unwrap_or_default(), port),
            None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
        };
        // Of a fully qualified name, clients leave the dot at its end out or not.
        let host = host.strip_suffix('.').unwrap_or(host);
        if matches!(host, "" | "[]") {
            return Err(IssuerUrlError::NoHost);
        }
        let (name, extra) = match host.strip_prefix('[') {
            Some(literal) => (literal.strip_suffix(']').ok_or(IssuerUrlError::Host)?, ":"),
            None => (host, "-_"),
        };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || extra.as_bytes().contains(&byte)) {
            return Err(IssuerUrlError::Host);
        }
        let is_port = |port: &str| {
            let is_short = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
            is_short && port.parse().is_ok_and(|port: u16| port > 0)
        };
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return Err(IssuerUrlError::Port);
        }
        let path = path.strip_suffix('/').unwrap_or(path).to_owned();
        Ok(Self { url: url.to_owned(), host: host.to_ascii_lowercase(), path })
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Debug for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerUrl({})", self.url)
    }
}

impl Bundle {
    /// The discovery document of `issuer`, JSON (OpenID Connect Discovery 1.0, section 3). Of algorithms it lists those of the
    /// keys and no others, as a relying party may accept whatever is listed.
    pub fn openid_configuration(&self, issuer: &IssuerUrl) -> Vec<u8> {
        let mut algorithms: BTreeSet<_> = self.jwt_authorities.iter().map(JwtVerificationKey::algorithm).collect();
        if algorithms.is_empty() {
            algorithms.insert(NO_KEY_ALGORITHM);
        }
        json(&OpenIdConfiguration {
            issuer: issuer.as_str(),
            jwks_uri: issuer.keys_url(),
            response_types_supported: ["id_token"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: algorithms,
        })
    }

    /// The JWT authorities as a JWK set for OIDC, JSON: each with `kid`, `alg`, and `use` with the value `sig` (RFC 7517,
    /// section 4.2), as readers that do not know SPIFFE ignore keys of its uses. Keys of other uses are never among them: an
    /// authority of WIT-SVIDs must not verify bearer tokens.
    pub fn openid_jwks(&self) -> Vec<u8> {
        let keys = self.jwt_authorities.iter().map(|authority| {
            let mut members = authority.jwk();
            members.insert("use".to_owned(), "sig".into());
            members.insert("alg".to_owned(), authority.algorithm().into());
            members
        });
        json(&JwkSet { keys: keys.collect() })
    }
}

/// RFC 3986, section 2, without what begins a query or a fragment.
fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/[]@!$&'()*+,;=%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::jwt::JwtAuthority;
    use crate::key::KeyType;

    fn issuer(url: &str) -> IssuerUrl {
        url.parse().unwrap()
    }

    fn bundle(keys: &[(&str, KeyType)]) -> Bundle {
        let authority = |(kid, kind): &(&str, KeyType)| {
            let key = crate::key::PrivateKey::generate(*kind).unwrap();
            JwtAuthority::new(kid, key).unwrap().verification_key().clone()
        };
        Bundle {
            trust_domain: "example.org".parse().unwrap(),
            x509_authorities: Vec::new(),
            jwt_authorities: keys.iter().map(authority).collect(),
            wit_authorities: Vec::new(),
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        }
    }

    fn read(json: &[u8]) -> Value {
        serde_json::from_slice(json).unwrap()
    }

    #[test]
    fn documents_are_below_the_path_of_the_issuer() {
        for (url, host, configuration, keys) in [
            ("https://a.example", "a.example", "/.well-known/openid-configuration", "/keys"),
            ("https://A.example:8443/", "a.example", "/.well-known/openid-configuration", "/keys"),
            ("https://a.example./", "a.example", "/.well-known/openid-configuration", "/keys"),
            ("https://a.example/x/y", "a.example", "/x/y/.well-known/openid-configuration", "/x/y/keys"),
            ("https://a.example/x/", "a.example", "/x/.well-known/openid-configuration", "/x/keys"),
            ("https://[2001:DB8::1]:9443/x", "[2001:db8::1]", "/x/.well-known/openid-configuration", "/x/keys"),
        ] {
            let issuer = issuer(url);
            assert_eq!(
                (issuer.as_str(), issuer.host(), &*issuer.configuration_path(), &*issuer.keys_path()),
                (url, host, configuration, keys)
            );
        }
    }

    #[test]
    fn what_is_no_issuer_is_refused_with_its_reason() {
        let long = format!("https://{}", "a".repeat(MAX_ISSUER_LENGTH));
        for (url, error) in [
            ("http://a.example", IssuerUrlError::Scheme),
            ("", IssuerUrlError::Scheme),
            ("https://a.example?x", IssuerUrlError::Character { position: 17 }),
            ("https://a.example/#x", IssuerUrlError::Character { position: 18 }),
            ("https://a.example/\n", IssuerUrlError::Character { position: 18 }),
            ("https://a.example\\x", IssuerUrlError::Character { position: 17 }),
            ("https://me@a.example", IssuerUrlError::UserInfo),
            ("https://", IssuerUrlError::NoHost),
            ("https:///x", IssuerUrlError::NoHost),
            ("https://:443", IssuerUrlError::NoHost),
            ("https://[]/x", IssuerUrlError::NoHost),
            ("https://a,b", IssuerUrlError::Host),
            ("https://a%41", IssuerUrlError::Host),
            ("https://[::1", IssuerUrlError::Host),
            ("https://[a-b]", IssuerUrlError::Host),
            ("https://a.example:", IssuerUrlError::Port),
            ("https://a.example:0", IssuerUrlError::Port),
            ("https://a.example:+1", IssuerUrlError::Port),
            ("https://a.example:65536", IssuerUrlError::Port),
            ("https://a.example:000443", IssuerUrlError::Port),
            ("https://[::1]8443", IssuerUrlError::Port),
            (&*long, IssuerUrlError::TooLong { length: long.len() }),
        ] {
            assert_eq!(url.parse::<IssuerUrl>(), Err(error), "{url}");
        }
    }

    /// OpenID Connect Discovery 1.0, section 4.3: `issuer` is identical to the claim `iss`, a slash at its end included.
    #[test]
    fn the_configuration_names_the_issuer_as_tokens_do_and_where_its_keys_are() {
        for (url, keys) in [
            ("https://a.example/x", "https://a.example/x/keys"),
            ("https://a.example:8443/", "https://a.example:8443/keys"),
        ] {
            let configuration = read(&bundle(&[("1", KeyType::EcP256)]).openid_configuration(&issuer(url)));
            let expected = json!({
                "issuer": url,
                "jwks_uri": keys,
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            assert_eq!(configuration, expected);
        }
    }

    #[test]
    fn algorithms_are_those_of_the_keys_each_once() {
        let of = |keys: &[(&str, KeyType)]| {
            let configuration = read(&bundle(keys).openid_configuration(&issuer("https://a.example")));
            configuration["id_token_signing_alg_values_supported"].clone()
        };
        assert_eq!(
            of(&[("1", KeyType::EcP384), ("2", KeyType::EcP256), ("3", KeyType::EcP256)]),
            json!(["ES256", "ES384"])
        );
        assert_eq!(of(&[("1", KeyType::Rsa2048)]), json!(["RS256"]));
        assert_eq!(of(&[]), json!(["RS256"]), "without keys the list still has one algorithm");
    }

    #[test]
    fn each_key_says_that_it_is_for_signatures_and_by_which_algorithm() {
        let bundle = bundle(&[("one", KeyType::EcP256), ("two", KeyType::EcP384), ("three", KeyType::Rsa2048)]);
        let keys = read(&bundle.openid_jwks());
        let keys = keys["keys"].as_array().unwrap();
        let members = |key: &Value| ["kid", "use", "alg", "kty"].map(|name| key[name].as_str().unwrap().to_owned());
        assert_eq!(
            keys.iter().map(members).collect::<Vec<_>>(),
            [["one", "sig", "ES256", "EC"], ["two", "sig", "ES384", "EC"], ["three", "sig", "RS256", "RSA"]]
        );
        assert!(keys.iter().all(|key| key.get("d").is_none() && key.get("x5c").is_none()));
    }

    #[test]
    fn an_algorithm_that_the_bundle_names_is_kept() {
        let mut document = read(&bundle(&[("1", KeyType::Rsa2048)]).to_json());
        document["keys"][0]["alg"] = json!("PS384");
        let bundle = Bundle::parse(&"example.org".parse().unwrap(), document.to_string().as_bytes()).unwrap();
        assert_eq!(read(&bundle.openid_jwks())["keys"][0]["alg"], json!("PS384"));
    }

    #[test]
    fn keys_of_other_uses_are_never_published_as_those_of_an_issuer() {
        let mut document = read(&bundle(&[("jwt", KeyType::EcP256)]).to_json());
        let jwt = document["keys"][0].clone();
        for other in [json!("wit-svid"), json!("x509-svid-like"), json!("sig"), Value::Null] {
            let mut key = jwt.clone();
            key["kid"] = json!(format!("of use {other}"));
            key["use"] = other;
            document["keys"].as_array_mut().unwrap().push(key);
        }
        let bundle = Bundle::parse(&"example.org".parse().unwrap(), document.to_string().as_bytes()).unwrap();
        let keys = read(&bundle.openid_jwks());
        let kids: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
        assert_eq!(kids, [json!("jwt")]);
    }
}
