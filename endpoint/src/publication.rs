//! Everything that is published at one moment, made from one set of files of the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use countersign_contract::files::{BUNDLE_DOCUMENT_SUFFIX, CHAIN, JWT_ISSUER_SUFFIX, KEY};
use countersign_core::{
    bundle::{Bundle, BundleError, BundleSet, IssuerUrlError},
    id::TrustDomain,
    x509::{X509SvidError, verify_x509_svid},
};
use jiff::Timestamp;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use crate::{
    certificate_files::{CertificateFileError, ServableCertificate},
    documents::{Documents, TrustDomainDocuments},
    host_names::HostNames,
};

/// A file of a set: its path below the set, such as `tls.crt` or `west/tls.crt`, and its content.
#[derive(Clone, Debug)]
pub struct Entry {
    /// With `/` between directory and name.
    pub path: String,
    /// Wiped after use: it may be a key.
    pub content: Zeroizing<Vec<u8>>,
}

/// What is published; never changed, only replaced.
#[derive(Debug)]
pub struct Publication {
    /// Bundles, and documents of OIDC.
    pub documents: Documents,
    /// The trust domains whose bundle document is not in the set.
    pub without_document: Vec<TrustDomain>,
    /// When the first of the SVIDs ends.
    pub expires: Timestamp,
    default: Arc<CertifiedKey>,
    certificates: BTreeMap<String, Arc<CertifiedKey>>,
}

/// Why a set cannot be published. Directories are named as in the set; that of the default identity is `.`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A file is missing.
    #[error("{directory}/{file} is missing")]
    Missing {
        /// Where.
        directory: String,
        /// Its name.
        file: &'static str,
    },
    /// Chain or key.
    #[error("{directory}: {source}")]
    Certificate {
        /// Where.
        directory: String,
        /// What is wrong.
        source: CertificateFileError,
    },
    /// The chain is not an SVID of its own trust domain.
    #[error("{directory}/tls.crt: {source}")]
    Svid {
        /// Where.
        directory: String,
        /// What is wrong.
        source: X509SvidError,
    },
    /// The bundle document of the directory's own trust domain.
    #[error("{directory}: bundle document of {trust_domain}: {source}")]
    Bundle {
        /// Where.
        directory: String,
        /// Whose.
        trust_domain: TrustDomain,
        /// What is wrong.
        source: BundleError,
    },
    /// The issuer of the directory's own trust domain.
    #[error("{directory}: JWT issuer of {trust_domain}: {reason}")]
    Issuer {
        /// Where.
        directory: String,
        /// Whose.
        trust_domain: TrustDomain,
        /// What is wrong.
        reason: IssuerProblem,
    },
    /// No bundle document in the whole set.
    #[error(
        "no directory has the bundle document of its own trust domain; the pod needs the annotation countersign.dev/bundle-documents"
    )]
    NoDocuments,
}

/// Why a file holds no issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerProblem {
    /// Not text.
    #[error("the file is not UTF-8")]
    NotText,
    /// Not a URL of an issuer.
    #[error(transparent)]
    Url(#[from] IssuerUrlError),
}

/// The files of one directory, by name.
type Directory<'a> = BTreeMap<&'a str, &'a [u8]>;

/// A bundle and the document that it was read from.
type ReadBundle<'a> = (Bundle, &'a [u8]);

/// What one directory adds.
struct Identity {
    trust_domain: TrustDomain,
    certificate: ServableCertificate,
    documents: Option<TrustDomainDocuments>,
}

impl Publication {
    /// What these files publish. Each SVID is verified by the bundle beside it before anybody is shown it.
    ///
    /// # Errors
    /// See [`SetError`]; a set is published as a whole or not at all.
    pub fn build(entries: &[Entry], hosts: &HostNames, now: Timestamp) -> Result<Self, SetError> {
        // The default identity's directory has the empty name, so that it is first.
        let mut directories: BTreeMap<&str, Directory<'_>> = BTreeMap::from([("", Directory::new())]);
        for entry in entries {
            let (directory, file) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
            directories.entry(directory).or_default().insert(file, &entry.content);
        }
        let mut identities = directories.into_iter().map(|(name, files)| Identity::read(name, &files, now));
        let default = identities.next().ok_or(SetError::NoDocuments)??;
        let (mut expires, default_domain) = (default.certificate.not_after, default.trust_domain.clone());
        let default_certificate = Arc::clone(&default.certificate.certified_key);
        let (mut certificates, mut documents, mut without_document) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        for identity in std::iter::once(Ok(default)).chain(identities) {
            let Identity { trust_domain, certificate, documents: published } = identity?;
            // Of two identities of a trust domain the first represents it.
            if certificates.contains_key(trust_domain.as_str()) {
                continue;
            }
            expires = expires.min(certificate.not_after);
            certificates.insert(trust_domain.as_str().to_owned(), certificate.certified_key);
            match published {
                Some(published) => documents.push(published),
                None => drop(without_document.insert(trust_domain)),
            }
        }
        if documents.is_empty() {
            return Err(SetError::NoDocuments);
        }
        Ok(Self {
            documents: Documents::new(Some(default_domain), &documents, hosts.clone()),
            without_document: without_document.into_iter().collect(),
            expires,
            default: default_certificate,
            certificates,
        })
    }

    /// The SVID for a server name: that of the trust domain which it stands for, otherwise that of the default identity.
    #[must_use]
    pub fn certificate(&self, server_name: Option<&str>) -> Arc<CertifiedKey> {
        let name = server_name.map(str::to_ascii_lowercase);
        let named = name.as_deref().and_then(|name| {
            let mapped = || self.certificates.get(self.documents.named(name)?);
            self.certificates.get(name).or_else(mapped)
        });
        Arc::clone(named.unwrap_or(&self.default))
    }
}

impl Identity {
    fn read(directory: &str, files: &Directory<'_>, now: Timestamp) -> Result<Self, SetError> {
        let directory = || if directory.is_empty() { "." } else { directory }.to_owned();
        let file = |name: &'static str| {
            files.get(name).copied().ok_or_else(|| SetError::Missing { directory: directory(), file: name })
        };
        let certificate = ServableCertificate::read(file(CHAIN)?, file(KEY)?)
            .map_err(|source| SetError::Certificate { directory: directory(), source })?;
        let (trust_domain, bundle) = own_bundle(&certificate, files, directory, now)?;
        let Some((bundle, document)) = bundle else {
            return Ok(Self { trust_domain, certificate, documents: None });
        };
        let issuer = match files.get(&*format!("{trust_domain}{JWT_ISSUER_SUFFIX}")) {
            Some(text) => Some(issuer(text).map_err(|reason| SetError::Issuer {
                directory: directory(),
                trust_domain: trust_domain.clone(),
                reason,
            })?),
            None => None,
        };
        let document = Bytes::copy_from_slice(document);
        Ok(Self { trust_domain, certificate, documents: Some(TrustDomainDocuments { bundle, document, issuer }) })
    }
}

/// The leaf's trust domain and its bundle, by which the chain is verified. Bundles of other trust domains are not looked at.
fn own_bundle<'a>(
    certificate: &ServableCertificate,
    files: &Directory<'a>,
    directory: impl Fn() -> String,
    now: Timestamp,
) -> Result<(TrustDomain, Option<ReadBundle<'a>>), SetError> {
    let chain: Vec<&[u8]> = certificate.certified_key.cert.iter().map(AsRef::as_ref).collect();
    let svid_error = |source| SetError::Svid { directory: directory(), source };
    // Without bundles, verification ends at what the leaf alone shows: that it is an SVID, and of which trust domain.
    let trust_domain = match verify_x509_svid(&chain, &BundleSet::default(), now) {
        Err(X509SvidError::UntrustedDomain(trust_domain)) => trust_domain,
        Err(source) => return Err(svid_error(source)),
        Ok(id) => id.trust_domain().clone(),
    };
    let Some(document) = files.get(&*format!("{trust_domain}{BUNDLE_DOCUMENT_SUFFIX}")).copied() else {
        return Ok((trust_domain, None));
    };
    let bundle = Bundle::parse(&trust_domain, document).map_err(|source| SetError::Bundle {
        directory: directory(),
        trust_domain: trust_domain.clone(),
        source,
    })?;
    let mut trusted = BundleSet::default();
    // A set of one bundle has no duplicate.
    let _ = trusted.insert(bundle.clone());
    verify_x509_svid(&chain, &trusted, now).map_err(svid_error)?;
    Ok((trust_domain, Some((bundle, document))))
}

fn issuer(text: &[u8]) -> Result<countersign_core::bundle::IssuerUrl, IssuerProblem> {
    Ok(std::str::from_utf8(text).map_err(|_| IssuerProblem::NotText)?.parse()?)
}

/// The current publication; handshakes and requests take the one of their moment.
#[derive(Debug, Default)]
pub struct Published(ArcSwapOption<Publication>);

impl Published {
    /// Replaces the current one.
    pub fn publish(&self, publication: Publication) {
        self.0.store(Some(Arc::new(publication)));
    }

    /// The current one, where there is one.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Publication>> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for Published {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().as_ref()?.certificate(hello.server_name()))
    }
}

#[cfg(test)]
#[path = "publication_tests.rs"]
mod tests;
