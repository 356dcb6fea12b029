//! Credentials from the files that Countersign's agent writes (SPIFFE Filesystem Delivery), read anew every second.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use countersign_contract::files::{BUNDLE_DOCUMENT_SUFFIX, CHAIN, KEY, TRUST_BUNDLE_SUFFIX};
use countersign_core::{
    bundle::{Bundle, BundleError, BundleSet},
    id::{SpiffeId, TrustDomain},
    x509::{X509SvidError, leaf_id},
};
use jiff::Timestamp;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use tokio::{task::JoinHandle, time::sleep};
use zeroize::Zeroizing;

use super::{
    SourceError,
    credentials::{SvidError, X509Credentials, X509Svid},
    current::{Watched, channel},
    token::{JwtSvid, TokenRequestError},
};

/// Between two looks. A replaced set of files is used after this at the latest.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why a set of files is not used.
#[derive(Debug, thiserror::Error)]
enum FolderError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{file}: {source}")]
    Pem { file: String, source: pem::Error },
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
    jwt_bundles: BundleSet,
}

pub(super) fn follow(folder: PathBuf) -> (Watched<X509Credentials>, Watched<BundleSet>, JoinHandle<()>) {
    let (x509, x509_watched) = channel();
    let (jwt, jwt_watched) = channel();
    let task = async move {
        let mut reported = None;
        loop {
            match read(&folder, Timestamp::now()) {
                Ok(Some(files)) => {
                    x509.publish(files.x509);
                    if !files.jwt_bundles.is_empty() {
                        jwt.publish(files.jwt_bundles);
                    }
                    reported = None;
                }
                Ok(None) => {
                    // The agent removes the files when the identity is withdrawn.
                    let reason = format!("{} is not there", folder.display()).into();
                    x509.removed(SourceError::NoIdentity { reason });
                    let reason = format!("{} is not there", folder.display()).into();
                    jwt.removed(SourceError::NoIdentity { reason });
                }
                Err(error) => {
                    let error = error.to_string();
                    x509.failed(&error);
                    if reported.as_ref() != Some(&error) {
                        tracing::warn!(%error, "the files of the identity are not used; those before them still are");
                        reported = Some(error);
                    }
                }
            }
            sleep(INTERVAL).await;
        }
    };
    (x509_watched, jwt_watched, tokio::spawn(task))
}

/// `None` if there is no folder.
fn read(folder: &Path, now: Timestamp) -> Result<Option<Files>, FolderError> {
    // One set of files: the link to it may be replaced while it is read.
    let set = match fs::canonicalize(folder) {
        Ok(set) => set,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FolderError::Io { path: folder.to_owned(), source }),
    };
    let (mut bundles, mut jwt_bundles) = (BundleSet::default(), BundleSet::default());
    let entries = fs::read_dir(&set).map_err(|source| FolderError::Io { path: set.clone(), source })?;
    for entry in entries {
        let name = entry.map_err(|source| FolderError::Io { path: set.clone(), source })?.file_name();
        let Some(name) = name.to_str() else { continue };
        let in_file = |source| FolderError::Bundle { file: name.to_owned(), source };
        if let Some(trust_domain) = trust_domain(name, TRUST_BUNDLE_SUFFIX) {
            let der: Vec<u8> = certificates(&set, name)?.iter().flat_map(|der| der.iter().copied()).collect();
            // Each is a file of its own name.
            let _ = bundles.insert(Bundle::from_x509_der(&trust_domain, &der).map_err(in_file)?);
        } else if let Some(trust_domain) = trust_domain(name, BUNDLE_DOCUMENT_SUFFIX) {
            let _ = jwt_bundles.insert(Bundle::parse(&trust_domain, &content(&set, name)?).map_err(in_file)?);
        }
    }
    let chain = certificates(&set, CHAIN)?;
    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    let id: SpiffeId = leaf_id(chain.first().copied().unwrap_or_default())?;
    let key = PrivateKeyDer::from_pem_slice(&content(&set, KEY)?)
        .map_err(|source| FolderError::Pem { file: KEY.to_owned(), source })?;
    let svid = X509Svid::verified(id, String::new(), &chain, key, &bundles, now)?;
    Ok(Some(Files { x509: X509Credentials::new(vec![svid], bundles), jwt_bundles }))
}

/// Tokens lie below `jwt`, under the name of their only audience.
pub(super) fn tokens(
    folder: &Path,
    audiences: &[&str],
    id: Option<&SpiffeId>,
) -> Result<Vec<JwtSvid>, TokenRequestError> {
    let unavailable = |reason: String| TokenRequestError::Unavailable { reason };
    let [audience] = audiences else {
        return Err(unavailable("a file holds a JWT-SVID of one audience".to_owned()));
    };
    let path = folder.join("jwt").join(format!("{}.token", percent_encode(audience)));
    let token = fs::read_to_string(&path).map_err(|error| unavailable(format!("{}: {error}", path.display())))?;
    let svid = JwtSvid::read(token, String::new())?;
    if id.is_some_and(|id| id != svid.id()) {
        return Err(TokenRequestError::Denied {
            reason: format!("the JWT-SVID in {} is that of {}", path.display(), svid.id()),
        });
    }
    Ok(vec![svid])
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

fn trust_domain(file: &str, suffix: &str) -> Option<TrustDomain> {
    file.strip_suffix(suffix)?.parse().ok()
}

fn certificates(set: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, FolderError> {
    let pem = content(set, name)?;
    let read = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>();
    read.map_err(|source| FolderError::Pem { file: name.to_owned(), source })
}

/// Wiped after use: it may be a key.
fn content(set: &Path, name: &str) -> Result<Zeroizing<Vec<u8>>, FolderError> {
    let path = set.join(name);
    fs::read(&path).map(Zeroizing::new).map_err(|source| FolderError::Io { path, source })
}
