//! The documents that are published, and where: bundles by trust domain, those of OIDC by host and path of the issuer's URL.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use aws_lc_rs::digest;
use axum::body::Bytes;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_core::{
    bundle::{Bundle, IssuerUrl},
    id::TrustDomain,
};

use crate::host_names::HostNames;

/// A document as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// JSON.
    pub body: Bytes,
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

/// What is at a path of an issuer's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenId {
    /// A discovery document.
    Configuration(Document),
    /// A JWK set.
    Keys(Document),
    /// Several trust domains would be here. None is served: the keys of one would verify tokens that claim to be the other's.
    Contradictory,
}

/// All documents.
#[derive(Debug, Default)]
pub struct Documents {
    bundles: BTreeMap<String, Document>,
    /// By host, in lower case and without port; then by path.
    open_id: HashMap<String, HashMap<String, OpenId>>,
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
            all.bundles.insert(name, Document::new(domain.document.clone(), domain.bundle.refresh_hint));
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

    fn add_issuer(&mut self, domain: &TrustDomainDocuments, contradictory: bool) {
        let (Some(issuer), bundle) = (&domain.issuer, &domain.bundle) else {
            return;
        };
        let (configuration, keys) = if contradictory {
            self.contradictory.push(bundle.trust_domain.clone());
            (OpenId::Contradictory, OpenId::Contradictory)
        } else {
            let document = |json: Vec<u8>| Document::new(json.into(), bundle.refresh_hint);
            (
                OpenId::Configuration(document(bundle.openid_configuration(issuer))),
                OpenId::Keys(document(bundle.openid_jwks())),
            )
        };
        let host = self.open_id.entry(issuer.host().to_owned()).or_default();
        for (path, document) in [(issuer.configuration_path(), configuration), (issuer.keys_path(), keys)] {
            // The keys of one issuer may be at the configuration of another.
            host.entry(path).and_modify(|there| *there = OpenId::Contradictory).or_insert(document);
        }
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

    /// What is at this host (in lower case, without port) and path for OIDC.
    #[must_use]
    pub fn open_id(&self, host: &str, path: &str) -> Option<&OpenId> {
        self.open_id.get(host)?.get(path)
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
    pub fn new(body: Bytes, max_age: Duration) -> Self {
        let hash = digest::digest(&digest::SHA256, &body);
        Self { etag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash)), body, max_age }
    }
}
