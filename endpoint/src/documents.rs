//! The documents that are published, and where: bundles by trust domain, those of OIDC and of trust domain
//! discovery by host and path.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use aws_lc_rs::digest;
use axum::body::Bytes;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_core::{
    bundle::{Bundle, IssuerUrl, METADATA_PATH, METADATA_TYPE, TRUST_BUNDLE_PATH, TRUST_BUNDLE_TYPE},
    id::TrustDomain,
};

use crate::host_names::HostNames;

const JSON: &str = "application/json";

/// A document as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// JSON.
    pub body: Bytes,
    /// Its media type.
    pub media_type: &'static str,
    /// Strong: the SHA-256 of the body, in quotes (RFC 9110, section 8.8.3).
    pub etag: String,
    /// How long it may be used without asking again.
    pub max_age: Duration,
}

/// What one trust domain publishes.
#[derive(Clone, Debug)]
pub struct TrustDomainDocuments {
    /// As it was read.
    pub bundle: Bundle,
    /// The bundle document, byte for byte.
    pub document: Bytes,
    /// The issuer of its JWT-SVIDs, where it has one.
    pub issuer: Option<IssuerUrl>,
}

/// What is at a path of a host that alone is entitled to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtHost {
    /// A discovery document of OIDC.
    Configuration(Document),
    /// A JWK set of OIDC.
    Keys(Document),
    /// Metadata of a trust domain, of WIMSE Trust Domain Discovery.
    TrustDomainMetadata(Document),
    /// A trust bundle of WIMSE Trust Domain Discovery.
    TrustBundle(Document),
    /// Several trust domains would be here. None is served: the keys of one would verify tokens that claim to be the other's.
    Contradictory,
}

/// All documents.
#[derive(Debug, Default)]
pub struct Documents {
    bundles: BTreeMap<String, Document>,
    /// By host, in lower case and without port; then by path.
    at_hosts: HashMap<String, HashMap<String, AtHost>>,
    /// The trust domain of the default identity, whether it has a bundle here or not.
    default: Option<TrustDomain>,
    hosts: HostNames,
    contradictory: Vec<TrustDomain>,
}

impl Documents {
    /// Those of these trust domains, of which there is one each.
    #[must_use]
    pub fn new(default: Option<TrustDomain>, domains: &[TrustDomainDocuments], hosts: HostNames) -> Self {
        let mut all = Self { default, hosts, ..Self::default() };
        let mut issuers: BTreeMap<(&str, String), Vec<&TrustDomainDocuments>> = BTreeMap::new();
        for domain in domains {
            let name = domain.bundle.trust_domain.as_str().to_owned();
            all.bundles.insert(name, Document::new(domain.document.clone(), JSON, domain.bundle.refresh_hint));
            all.add_discovery(&domain.bundle);
            if let Some(issuer) = &domain.issuer {
                // Two URLs that differ in a slash at the end or in the port alone have their documents in one place.
                issuers.entry((issuer.host(), issuer.keys_path())).or_default().push(domain);
            }
        }
        for sharing in issuers.values() {
            for domain in sharing {
                all.add_issuer(domain, sharing.len() > 1);
            }
        }
        all
    }

    /// Where the trust domain can be discovered: at the host of its own name, and at no parent of it.
    fn add_discovery(&mut self, bundle: &Bundle) {
        let Some(metadata) = bundle.wimse_metadata() else {
            return;
        };
        let document = |json: Vec<u8>, media_type| Document::new(json.into(), media_type, bundle.refresh_hint);
        let metadata = AtHost::TrustDomainMetadata(document(metadata, METADATA_TYPE));
        let trust_bundle = AtHost::TrustBundle(document(bundle.wimse_trust_bundle(), TRUST_BUNDLE_TYPE));
        let host = bundle.trust_domain.as_str();
        self.add(host, METADATA_PATH.to_owned(), metadata);
        self.add(host, TRUST_BUNDLE_PATH.to_owned(), trust_bundle);
    }

    fn add(&mut self, host: &str, path: String, document: AtHost) {
        let paths = self.at_hosts.entry(host.to_owned()).or_default();
        // The keys of one issuer may be at the configuration of another.
        paths.entry(path).and_modify(|there| *there = AtHost::Contradictory).or_insert(document);
    }

    fn add_issuer(&mut self, domain: &TrustDomainDocuments, contradictory: bool) {
        let (Some(issuer), bundle) = (&domain.issuer, &domain.bundle) else {
            return;
        };
        let (configuration, keys) = if contradictory {
            self.contradictory.push(bundle.trust_domain.clone());
            (AtHost::Contradictory, AtHost::Contradictory)
        } else {
            let document = |json: Vec<u8>| Document::new(json.into(), JSON, bundle.refresh_hint);
            (
                AtHost::Configuration(document(bundle.openid_configuration(issuer))),
                AtHost::Keys(document(bundle.openid_jwks())),
            )
        };
        self.add(issuer.host(), issuer.configuration_path(), configuration);
        self.add(issuer.host(), issuer.keys_path(), keys);
    }

    /// The trust domain that a host or server name (in lower case, without port) stands for.
    #[must_use]
    pub fn named<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.bundles.contains_key(name) {
            return Some(name);
        }
        self.hosts.get(name).map(TrustDomain::as_str)
    }

    /// The trust domain of the default identity.
    #[must_use]
    pub fn default_trust_domain(&self) -> Option<&str> {
        self.default.as_ref().map(TrustDomain::as_str)
    }

    /// The bundle document of a trust domain.
    #[must_use]
    pub fn bundle(&self, trust_domain: &str) -> Option<&Document> {
        self.bundles.get(trust_domain)
    }

    /// What is at this path of this host (in lower case, without port) only.
    #[must_use]
    pub fn at_host(&self, host: &str, path: &str) -> Option<&AtHost> {
        self.at_hosts.get(host)?.get(path)
    }

    /// How many trust domains have their bundle here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bundles.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }

    /// The trust domains whose issuer is not served, as another one has it too.
    #[must_use]
    pub fn contradictory(&self) -> &[TrustDomain] {
        &self.contradictory
    }
}

impl Document {
    /// This one.
    #[must_use]
    pub fn new(body: Bytes, media_type: &'static str, max_age: Duration) -> Self {
        let hash = digest::digest(&digest::SHA256, &body);
        Self { etag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash)), body, media_type, max_age }
    }
}
