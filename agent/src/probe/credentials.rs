//! The default identity of a pod, from the files that its agent writes, and the bundles beside it.

use std::{fs, io, path::Path, sync::Arc};

use countersign_contract::files::{CHAIN, KEY, TRUST_BUNDLE_SUFFIX};
use countersign_core::{
    bundle::{Bundle, BundleError, BundleSet},
    id::{SpiffeId, TrustDomain},
    x509::{X509SvidError, verify_x509_svid},
};
use countersign_verify::tls::{Bundles, FixedBundles, Svid};
use jiff::Timestamp;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

/// Why there are none. Holds no content: one of the files is a key.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("the pod has no identity that can be read: {file}: {source}")]
    Io {
        /// Its name.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{file} is not what the agent writes")]
    Malformed {
        /// Its name.
        file: String,
    },
    /// A bundle cannot be used.
    #[error("{file}: {source}")]
    Bundle {
        /// The name of its file.
        file: String,
        /// Why.
        source: BundleError,
    },
    /// The SVID is not valid by the bundle beside it, for example because it has expired.
    #[error("the pod's own X509-SVID is not valid: {0}")]
    Svid(#[from] X509SvidError),
    /// The key cannot be used.
    #[error("the key cannot be used: {0}")]
    Key(#[from] rustls::Error),
}

/// An SVID with its key, and the bundles by which peers are verified.
#[derive(Clone, Debug)]
pub struct Credentials {
    id: SpiffeId,
    key: Arc<CertifiedKey>,
    bundles: Arc<BundleSet>,
}

impl Credentials {
    /// Reads one set of files.
    ///
    /// # Errors
    /// When it is missing or the SVID is not valid at `now`.
    pub fn read(folder: &Path, now: Timestamp) -> Result<Self, CredentialsError> {
        // One set: the agent replaces the link to it as a whole.
        let set = fs::canonicalize(folder).map_err(in_file(&folder.display().to_string()))?;
        let chain = certificates(&set, CHAIN)?;
        let key = content(&set, KEY)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| malformed(KEY))?;
        let bundles = Arc::new(bundles(&set)?);
        let der: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
        let id = verify_x509_svid(&der, &bundles, now)?;
        let key = Arc::new(CertifiedKey::new(chain, any_supported_type(&key)?));
        Ok(Self { id, key, bundles })
    }

    /// Whose they are.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub(super) fn svid(&self) -> Arc<dyn Svid> {
        Arc::new(FixedSvid(Arc::clone(&self.key)))
    }

    pub(super) fn bundles(&self) -> Arc<dyn Bundles> {
        Arc::new(FixedBundles(Arc::clone(&self.bundles)))
    }
}

/// An SVID that does not change: a probe is over before it would be renewed.
#[derive(Debug)]
struct FixedSvid(Arc<CertifiedKey>);

impl Svid for FixedSvid {
    fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn bundles(set: &Path) -> Result<BundleSet, CredentialsError> {
    let mut bundles = BundleSet::default();
    let in_set = || in_file("the folder of the credentials");
    for entry in fs::read_dir(set).map_err(in_set())? {
        let name = entry.map_err(in_set())?.file_name();
        let Some(file) = name.to_str() else { continue };
        let Some(trust_domain) = file.strip_suffix(TRUST_BUNDLE_SUFFIX) else { continue };
        let Ok(trust_domain) = trust_domain.parse::<TrustDomain>() else { continue };
        let der: Vec<u8> = certificates(set, file)?.iter().flat_map(|der| der.iter().copied()).collect();
        let bundle = Bundle::from_x509_der(&trust_domain, &der)
            .map_err(|source| CredentialsError::Bundle { file: file.to_owned(), source })?;
        // Each file name is there once.
        let _ = bundles.insert(bundle);
    }
    Ok(bundles)
}

fn certificates(set: &Path, file: &str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let pem = content(set, file)?;
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| malformed(file))
}

/// Wiped after use: it may be a key.
fn content(set: &Path, file: &str) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    fs::read(set.join(file)).map(Zeroizing::new).map_err(in_file(file))
}

fn in_file(file: &str) -> impl FnOnce(io::Error) -> CredentialsError + use<> {
    let file = file.to_owned();
    move |source| CredentialsError::Io { file, source }
}

fn malformed(file: &str) -> CredentialsError {
    CredentialsError::Malformed { file: file.to_owned() }
}
