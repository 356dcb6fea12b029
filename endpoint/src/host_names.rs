//! By which names the endpoint is called for a trust domain: by that of the trust domain itself, and by those that flags give.

use std::{collections::BTreeMap, str::FromStr};

use countersign_core::id::{IdError, TrustDomain};

/// Names in the server name of TLS handshakes and in the host of requests, and the trust domains that they stand for.
#[derive(Clone, Debug, Default)]
pub struct HostNames(BTreeMap<String, TrustDomain>);

/// One name for a trust domain: `NAME=TRUST_DOMAIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// In lower case, without port.
    name: String,
    trust_domain: TrustDomain,
}

/// Why a text is not a [`HostName`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// No `=`, or nothing before it.
    #[error("write NAME=TRUST_DOMAIN, such as bundles.example.org=example.org")]
    Malformed,
    /// The name has a port or a path.
    #[error("{0:?} is not a host name without port")]
    Name(String),
    /// The trust domain is none.
    #[error(transparent)]
    TrustDomain(#[from] IdError),
}

/// A name stands for two trust domains.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--host: {name} stands for {first} and for {second}; a name stands for one trust domain")]
pub struct AmbiguousHostName {
    name: String,
    first: TrustDomain,
    second: TrustDomain,
}

impl HostNames {
    /// These names.
    ///
    /// # Errors
    /// When one of them stands for two trust domains.
    pub fn new(names: impl IntoIterator<Item = HostName>) -> Result<Self, AmbiguousHostName> {
        let mut all = BTreeMap::new();
        for HostName { name, trust_domain } in names {
            let first = all.insert(name.clone(), trust_domain.clone());
            if let Some(first) = first.filter(|first| *first != trust_domain) {
                return Err(AmbiguousHostName { name, first, second: trust_domain });
            }
        }
        Ok(Self(all))
    }

    /// The trust domain that `name` (in lower case, without port) stands for by a flag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TrustDomain> {
        self.0.get(name)
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, trust_domain) = text.split_once('=').ok_or(HostNameError::Malformed)?;
        if name.is_empty() {
            return Err(HostNameError::Malformed);
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if !name.bytes().all(is_name) {
            return Err(HostNameError::Name(name.to_owned()));
        }
        Ok(Self { name: name.to_ascii_lowercase(), trust_domain: trust_domain.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Result<HostNames, AmbiguousHostName> {
        HostNames::new(texts.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn a_name_stands_for_its_trust_domain_in_any_case() {
        let names = names(&["Bundles.example.org=example.org", "10.0.0.1=b"]).unwrap();
        assert_eq!(names.get("bundles.example.org").map(TrustDomain::as_str), Some("example.org"));
        assert_eq!(names.get("10.0.0.1").map(TrustDomain::as_str), Some("b"));
        assert!(names.get("example.org").is_none());
    }

    #[test]
    fn what_is_no_name_of_a_trust_domain_is_refused() {
        for text in ["", "a", "=a"] {
            assert_eq!(text.parse::<HostName>(), Err(HostNameError::Malformed), "{text}");
        }
        for text in ["a:443=a", "a/b=a", "a b=a"] {
            assert!(matches!(text.parse::<HostName>(), Err(HostNameError::Name(_))), "{text}");
        }
        for text in ["a=", "a=B", "a=b=c"] {
            assert!(matches!(text.parse::<HostName>(), Err(HostNameError::TrustDomain(_))), "{text}");
        }
    }

    #[test]
    fn a_name_stands_for_one_trust_domain() {
        let error = names(&["x=a", "X=b"]).unwrap_err().to_string();
        assert!(error.contains("x stands for a and for b"), "{error}");
        assert!(names(&["x=a", "x=a", "y=a"]).is_ok());
    }
}
