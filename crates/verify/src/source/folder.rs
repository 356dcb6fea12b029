//! Credentials from the files that Countersign's agent writes (SPIFFE Filesystem Delivery): looked for every second, and read when they
//! were replaced.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use countersign_contract::files::{
    BUNDLE_DOCUMENT_SUFFIX, CHAIN, FORMER_TRUST_BUNDLE_SUFFIX, KEY, TRUST_BUNDLE_SUFFIX,
};
use countersign_core::{
    bundle::{Bundle, BundleError, BundleSet, MAX_BUNDLE_LENGTH},
    id::{SpiffeId, TrustDomain},
    x509::{X509SvidError, leaf_id},
};
use jiff::Timestamp;
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer,
    pem::{self, PemObject as _},
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};
use zeroize::Zeroizing;

use super::{
    SourceError,
    credentials::{SvidError, X509Credentials, X509Svid},
    current::{Watched, channel},
    token::{JwtSvid, TokenRequestError},
};

/// Between two looks. A replaced set of files is used after this at the latest.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest file that is read, in bytes.
const LONGEST_FILE: u64 = MAX_BUNDLE_LENGTH as u64;

/// Why a set of files is not used. Holds no content: one of them is a key.
#[derive(Debug, thiserror::Error)]
enum FolderError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: longer than {LONGEST_FILE} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("{file} is not one or more certificates in PEM")]
    Certificates { file: String },
    #[error("{KEY} is not a private key in PEM (PKCS#8)")]
    Key,
    #[error("{file}: {source}")]
    Bundle { file: String, source: BundleError },
    #[error("{CHAIN}: {0}")]
    Leaf(#[from] X509SvidError),
    #[error(transparent)]
    Svid(#[from] SvidError),
}

/// What a set of files says.
struct Files {
    x509: X509Credentials,
    /// `None`: the set has no documents.
    jwt_bundles: Option<BundleSet>,
}

/// Which set of files it is. The agent never changes one, it writes another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set {
    path: PathBuf,
    modified: Option<SystemTime>,
}

pub(super) fn follow(folder: PathBuf) -> (Watched<X509Credentials>, Watched<BundleSet>, JoinHandle<()>) {
    let (x509, x509_watched) = channel();
    let (jwt, jwt_watched) = channel();
    let task = async move {
        let (mut in_use, mut reported) = (None, None);
        let gone: Arc<str> = format!("{} is not there", folder.display()).into();
        let no_documents: Arc<str> = "the agent writes no bundle documents, by which JWT-SVIDs are validated".into();
        loop {
            let (looked_at, known) = (folder.clone(), in_use.clone());
            // Files may be slow; a thread of its own waits for them.
            let looked = spawn_blocking(move || look(&looked_at, known.as_ref(), Timestamp::now())).await;
            match looked {
                Ok(Ok(Look::Same)) => {}
                Ok(Ok(Look::Other(set, files))) => {
                    x509.publish(files.x509);
                    match files.jwt_bundles {
                        Some(bundles) => jwt.publish(bundles),
                        None => jwt.removed(&SourceError::NoIdentity { reason: no_documents.clone() }),
                    }
                    (in_use, reported) = (Some(set), None);
                }
                Ok(Ok(Look::Gone)) => {
                    // The agent removes the files when the identity is withdrawn.
                    let why = SourceError::NoIdentity { reason: gone.clone() };
                    x509.removed(&why);
                    jwt.removed(&why);
                    (in_use, reported) = (None, None);
                }
                Ok(Err(error)) => {
                    let error = error.to_string();
                    x509.failed(&error);
                    jwt.failed(&error);
                    if reported.as_ref() != Some(&error) {
                        tracing::warn!(%error, "cannot read the files of the identity; keeping the previous ones");
                        reported = Some(error);
                    }
                }
                Err(error) => tracing::error!(%error, "reading the files of the identity failed"),
            }
            sleep(INTERVAL).await;
        }
    };
    (x509_watched, jwt_watched, tokio::spawn(task))
}

enum Look {
    Gone,
    Same,
    Other(Set, Box<Files>),
}

fn look(folder: &Path, in_use: Option<&Set>, now: Timestamp) -> Result<Look, FolderError> {
    // One set of files: the link to it may be replaced while it is read.
    let path = match fs::canonicalize(folder) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Gone),
        Err(source) => return Err(FolderError::Io { path: folder.to_owned(), source }),
    };
    let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
    let set = Set { path, modified };
    if in_use == Some(&set) {
        return Ok(Look::Same);
    }
    let files = read(&set.path, now)?;
    Ok(Look::Other(set, Box::new(files)))
}

fn read(set: &Path, now: Timestamp) -> Result<Files, FolderError> {
    let chain = certificates(set, CHAIN)?;
    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    let id: SpiffeId = leaf_id(chain.first().copied().unwrap_or_default())?;
    let (mut bundles, mut jwt_bundles) = (BundleSet::default(), None);
    let in_set = |source| FolderError::Io { path: set.to_owned(), source };
    for entry in fs::read_dir(set).map_err(in_set)? {
        let name = entry.map_err(in_set)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(trust_domain) = trust_bundle(name) {
            // Under the former name it is the same file, or one whose name is too long for the other.
            if bundles.get(&trust_domain).is_none()
                && let Some(bundle) = usable(&id, &trust_domain, name, anchors(set, name, &trust_domain))?
            {
                let _ = bundles.insert(bundle);
            }
        } else if let Some(trust_domain) = trust_domain(name, BUNDLE_DOCUMENT_SUFFIX)
            && let Some(bundle) = usable(&id, &trust_domain, name, document(set, name, &trust_domain))?
        {
            let _ = jwt_bundles.get_or_insert_with(BundleSet::default).insert(bundle);
        }
    }
    let key = PrivatePkcs8KeyDer::from_pem_slice(&content(set, KEY)?).map_err(|_: pem::Error| FolderError::Key)?;
    let key = Zeroizing::new(key.secret_pkcs8_der().to_vec());
    let svid = X509Svid::verified(id, String::new(), &chain, &key, &bundles, now)?;
    Ok(Files { x509: X509Credentials::new(vec![svid], bundles), jwt_bundles })
}

/// A foreign bundle that cannot be read is left out: a peer's mistake must not keep this workload from its own SVID, and without its
/// bundle the peer is refused.
fn usable(
    own: &SpiffeId,
    trust_domain: &TrustDomain,
    file: &str,
    read: Result<Bundle, FolderError>,
) -> Result<Option<Bundle>, FolderError> {
    match read {
        Ok(bundle) => Ok(Some(bundle)),
        Err(error) if own.trust_domain() == trust_domain => Err(error),
        Err(error) => {
            tracing::warn!(file, %error, "a foreign bundle is not used, and nobody of its trust domain accepted");
            Ok(None)
        }
    }
}

fn anchors(set: &Path, name: &str, trust_domain: &TrustDomain) -> Result<Bundle, FolderError> {
    let der: Vec<u8> = certificates(set, name)?.iter().flat_map(|der| der.iter().copied()).collect();
    let in_file = |source| FolderError::Bundle { file: name.to_owned(), source };
    Bundle::from_x509_der(trust_domain, &der).map_err(in_file)
}

fn document(set: &Path, name: &str, trust_domain: &TrustDomain) -> Result<Bundle, FolderError> {
    let in_file = |source| FolderError::Bundle { file: name.to_owned(), source };
    Bundle::parse(trust_domain, &content(set, name)?).map_err(in_file)
}

/// Tokens lie below `jwt`, under the name of their only audience.
pub(super) async fn tokens(
    folder: PathBuf,
    audiences: &[&str],
    now: Timestamp,
) -> Result<Vec<JwtSvid>, TokenRequestError> {
    let unavailable = |reason: String| TokenRequestError::Unavailable { reason };
    let [audience] = audiences else {
        return Err(unavailable("a file holds a JWT-SVID of one audience".to_owned()));
    };
    let name = format!("{}.token", percent_encode(audience));
    let read = spawn_blocking(move || content(&folder.join("jwt"), &name));
    let content = match read.await {
        Ok(content) => content.map_err(|error| unavailable(error.to_string()))?,
        Err(error) => return Err(unavailable(error.to_string())),
    };
    let token =
        std::str::from_utf8(&content).map_err(|_| unavailable("the file of the JWT-SVID is not text".to_owned()))?;
    Ok(vec![JwtSvid::read(Zeroizing::new(token.to_owned()), String::new(), audiences, now)?])
}

/// As the agent does: everything but RFC 3986's unreserved characters becomes `%XX`.
fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect()
}

fn trust_bundle(file: &str) -> Option<TrustDomain> {
    trust_domain(file, TRUST_BUNDLE_SUFFIX).or_else(|| trust_domain(file, FORMER_TRUST_BUNDLE_SUFFIX))
}

fn trust_domain(file: &str, suffix: &str) -> Option<TrustDomain> {
    file.strip_suffix(suffix)?.parse().ok()
}

fn certificates(set: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, FolderError> {
    let pem = content(set, name)?;
    let read = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, pem::Error>>();
    read.map_err(|_| FolderError::Certificates { file: name.to_owned() })
}

/// Wiped after use: it may be a key.
fn content(set: &Path, name: &str) -> Result<Zeroizing<Vec<u8>>, FolderError> {
    let path = set.join(name);
    let read = || {
        let metadata = fs::metadata(&path)?;
        // A pipe would keep the reader waiting.
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
        }
        if metadata.len() > LONGEST_FILE { Ok(None) } else { fs::read(&path).map(Some) }
    };
    match read() {
        Ok(Some(content)) => Ok(Zeroizing::new(content)),
        Ok(None) => Err(FolderError::TooLong { path }),
        Err(source) => Err(FolderError::Io { path, source }),
    }
}
