//! Documents of WIMSE Trust Domain Discovery (draft-schwenkschuster-wimse-trust-domain-discovery-00, experimental): how whoever
//! knows nothing but the name of a trust domain finds its anchors.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Bundle;
use super::document::{WIMSE_JWT_USE, WIMSE_X509_USE, json, x509_jwk};
use crate::entitlement::check_dns_label;
use crate::federation::EndpointUrl;
use crate::id::TrustDomain;
use crate::jws::read_object;
use crate::jwt::JwtVerificationKey;

/// Where the metadata of a trust domain are, at the host of its name (section "Well-Known URI").
pub const METADATA_PATH: &str = "/.well-known/wimse-trust-domain";
/// The media type of the metadata (section "Trust Domain Metadata").
pub const METADATA_TYPE: &str = "application/wimse-trust-domain-metadata+json";
/// Where the trust bundle is, at the same host; found by the metadata.
pub const TRUST_BUNDLE_PATH: &str = "/wimse/trust-bundle";
/// The media type of a trust bundle (section "The WIMSE Trust Bundle").
pub const TRUST_BUNDLE_TYPE: &str = "application/wimse-trust-bundle+json";

/// Why the metadata of a trust domain lead to no trust bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Not a JSON object with both members, or the endpoint is no https URL.
    #[error("the metadata are not a JSON object with trust_domain and trust_bundle_endpoint (an https URL)")]
    Malformed,
    /// They are those of another trust domain.
    #[error("the metadata are those of another trust domain")]
    WrongTrustDomain,
}

#[derive(Deserialize)]
struct ReadMetadata {
    trust_domain: String,
    trust_bundle_endpoint: String,
}

#[derive(Serialize)]
struct Metadata<'a> {
    trust_domain: &'a str,
    trust_bundle_endpoint: String,
}

#[derive(Serialize)]
struct TrustBundle {
    keys: Vec<Map<String, Value>>,
    refresh_hint: u64,
    sequence_number: u64,
}

impl Bundle {
    /// The metadata of the trust domain, JSON. `None` where its name is no fully qualified DNS name: then it cannot be discovered
    /// (section "Requirements on Discoverable Trust Domains").
    pub fn wimse_metadata(&self) -> Option<Vec<u8>> {
        let trust_domain = self.trust_domain.as_str();
        let trust_bundle_endpoint = format!("https://{trust_domain}{TRUST_BUNDLE_PATH}");
        is_dns_name(&self.trust_domain).then(|| json(&Metadata { trust_domain, trust_bundle_endpoint }))
    }

    /// The trust bundle, JSON: the same keys as in the bundle document of SPIFFE, under the names of uses of the draft (section
    /// "Bundle Entries").
    pub fn wimse_trust_bundle(&self) -> Vec<u8> {
        let with_use = |mut key: Map<String, Value>, name: &str| {
            key.insert("use".to_owned(), name.into());
            key
        };
        let x509 = self.x509_authorities.iter().map(|authority| with_use(x509_jwk(authority), WIMSE_X509_USE));
        let jwt = self.jwt_authorities.iter().map(JwtVerificationKey::jwk).map(|key| with_use(key, WIMSE_JWT_USE));
        json(&TrustBundle {
            keys: x509.chain(jwt).collect(),
            refresh_hint: self.refresh_hint.as_secs(),
            sequence_number: self.sequence,
        })
    }
}

impl TrustDomain {
    /// Where the metadata of the trust domain are. `None` where its name is no fully qualified DNS name.
    pub fn wimse_metadata_url(&self) -> Option<EndpointUrl> {
        is_dns_name(self).then(|| format!("https://{self}{METADATA_PATH}").parse().ok()).flatten()
    }

    /// Where the trust bundle is, from metadata that were fetched at [`Self::wimse_metadata_url`].
    ///
    /// # Errors
    /// When they cannot be read, or name another trust domain: the names must be the same byte for byte (section "Trust Domain
    /// Metadata").
    pub fn wimse_trust_bundle_url(&self, metadata: &[u8]) -> Result<EndpointUrl, MetadataError> {
        let read: ReadMetadata = read_object(metadata).ok_or(MetadataError::Malformed)?;
        if read.trust_domain != self.as_str() {
            return Err(MetadataError::WrongTrustDomain);
        }
        read.trust_bundle_endpoint.parse().map_err(|_| MetadataError::Malformed)
    }
}

/// Whether the name is a fully qualified DNS name of at least two labels (RFC 1123, section 2.1), and no IPv4 address.
fn is_dns_name(name: &TrustDomain) -> bool {
    let Some((_, last)) = name.as_str().rsplit_once('.') else {
        return false;
    };
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    !is_number && name.as_str().split('.').all(|label| check_dns_label(label).is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::bundle::{BundleDocument, BundleFormat};
    use crate::jwt::JwtAuthority;
    use crate::key::KeyType;
    use crate::x509::X509Authority;

    fn bundle(name: &str) -> Bundle {
        let trust_domain: TrustDomain = name.parse().unwrap();
        let life = Duration::from_secs(3600);
        let x509 = X509Authority::generate(&trust_domain, KeyType::EcP256, life, Timestamp::now()).unwrap();
        let jwt = JwtAuthority::generate(KeyType::EcP256).unwrap();
        Bundle {
            trust_domain,
            x509_authorities: vec![x509.certificate().clone()],
            jwt_authorities: vec![jwt.verification_key().clone()],
            wit_authorities: Vec::new(),
            sequence: 7,
            refresh_hint: Duration::from_secs(300),
        }
    }

    fn read(json: &[u8]) -> Value {
        serde_json::from_slice(json).unwrap()
    }

    /// R34
    #[test]
    fn the_metadata_name_the_trust_domain_and_where_its_trust_bundle_is() {
        let expected = json!({
            "trust_domain": "prod.example.com",
            "trust_bundle_endpoint": "https://prod.example.com/wimse/trust-bundle",
        });
        assert_eq!(read(&bundle("prod.example.com").wimse_metadata().unwrap()), expected);
    }

    #[test]
    fn a_name_that_is_no_fully_qualified_dns_name_is_not_discoverable() {
        for name in ["localhost", "a_b.example", "10.0.0.1", "-a.example", "a-.example", "a..example", "a.example."] {
            assert!(bundle(name).wimse_metadata().is_none(), "{name}");
        }
        assert!(bundle("a1.2b.example").wimse_metadata().is_some());
    }

    /// R34
    #[test]
    fn metadata_lead_to_the_trust_bundle_of_their_trust_domain_alone() {
        let domain: TrustDomain = "prod.example.com".parse().unwrap();
        let url = domain.wimse_metadata_url().unwrap();
        assert_eq!(url.as_str(), "https://prod.example.com/.well-known/wimse-trust-domain");
        let metadata = |domain: &str, url: &str| {
            json!({ "trust_domain": domain, "trust_bundle_endpoint": url, "new": 1 }).to_string().into_bytes()
        };
        let found = domain.wimse_trust_bundle_url(&metadata("prod.example.com", "https://cdn.example:8443/b?x=1"));
        assert_eq!(found.unwrap().as_str(), "https://cdn.example:8443/b?x=1");
        for other in ["Prod.example.com", "example.com", "a.prod.example.com", "prod.example.com.", ""] {
            let found = domain.wimse_trust_bundle_url(&metadata(other, "https://cdn.example/"));
            assert_eq!(found, Err(MetadataError::WrongTrustDomain), "{other}");
        }
        for url in ["http://cdn.example/", "https://me@cdn.example/", "/b", ""] {
            let found = domain.wimse_trust_bundle_url(&metadata("prod.example.com", url));
            assert_eq!(found, Err(MetadataError::Malformed), "{url}");
        }
        for text in ["", "[]", "{}", r#"{"trust_domain":"prod.example.com"}"#, "<html>"] {
            assert_eq!(domain.wimse_trust_bundle_url(text.as_bytes()), Err(MetadataError::Malformed), "{text}");
        }
    }

    #[test]
    fn a_trust_bundle_is_read_as_it_was_written_and_not_as_a_bundle_document() {
        let bundle = bundle("a.example");
        let (wimse, spiffe) = (bundle.wimse_trust_bundle(), bundle.to_json());
        let read = |format, document: &[u8]| BundleDocument::parse(format, &bundle.trust_domain, document).unwrap();
        assert_eq!(read(BundleFormat::Wimse, &wimse), BundleDocument { bundle: bundle.clone(), sequence: Some(7) });
        // Each has none of the names of the other.
        for (format, document) in [(BundleFormat::Wimse, &spiffe), (BundleFormat::Spiffe, &wimse)] {
            let read = read(format, document);
            assert!(read.sequence.is_none() && read.bundle.x509_authorities.is_empty(), "{format:?}");
            assert!(read.bundle.jwt_authorities.is_empty(), "{format:?}");
        }
    }

    #[test]
    fn a_member_of_the_other_format_is_unknown_whatever_its_type() {
        let domain: TrustDomain = "a.example".parse().unwrap();
        let read = |format, document: Value| {
            BundleDocument::parse(format, &domain, document.to_string().as_bytes()).map(|read| read.sequence)
        };
        let spiffe = json!({ "keys": [], "spiffe_sequence": 3, "sequence_number": "x", "refresh_hint": "5m" });
        assert_eq!(read(BundleFormat::Spiffe, spiffe), Ok(Some(3)));
        let wimse = json!({ "keys": [], "sequence_number": 3, "spiffe_sequence": "x", "spiffe_refresh_hint": [] });
        assert_eq!(read(BundleFormat::Wimse, wimse), Ok(Some(3)));
    }

    #[test]
    fn a_trust_bundle_has_the_keys_of_the_bundle_under_the_uses_of_the_draft() {
        let bundle = bundle("a.example");
        let (wimse, spiffe) = (read(&bundle.wimse_trust_bundle()), read(&bundle.to_json()));
        assert_eq!((&wimse["refresh_hint"], &wimse["sequence_number"]), (&json!(300), &json!(7)));
        let (wimse, spiffe) = (wimse["keys"].as_array().unwrap(), spiffe["keys"].as_array().unwrap());
        assert_eq!(
            wimse.iter().map(|key| key["use"].as_str().unwrap()).collect::<Vec<_>>(),
            ["wimse-x509", "wimse-jwt"]
        );
        assert_eq!((&wimse[0]["x5c"], &wimse[1]["kid"]), (&spiffe[0]["x5c"], &spiffe[1]["kid"]));
        assert_eq!((&wimse[0]["x"], &wimse[1]["x"]), (&spiffe[0]["x"], &spiffe[1]["x"]));
    }
}
