//! Credentials as files, named as the SPIFFE Filesystem Delivery draft says. A whole directory is written beside the old one
//! and replaces it by one rename, so that a reader who opens a file by its path finds a consistent set (R71).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use countersign_contract::files::{
    BUNDLE_DOCUMENT_SUFFIX, CHAIN, CREDENTIAL_BUNDLE, CREDENTIALS as CURRENT, FORMER_CREDENTIAL_BUNDLE,
    FORMER_TRUST_BUNDLE_SUFFIX, JWT_ISSUER_SUFFIX, KEY, TRUST_ANCHORS, TRUST_BUNDLE_SUFFIX,
};
use countersign_core::id::TrustDomain;
use countersign_core::x509::{Fingerprint, fingerprint};
use zeroize::Zeroizing;

use crate::publish::{Credentials, Svid};

/// The prefix of each set's directory, followed by a number.
const SET: &str = ".credentials-";
/// The longest file name of Linux file systems, in bytes.
const NAME_MAX: usize = 255;

/// S_ISGID: what is made in such a directory has its group.
const SET_GROUP_ID: u32 = 0o2000;

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct FileError {
    path: PathBuf,
    source: io::Error,
}

/// The files of one session.
#[derive(Debug)]
pub struct Folder {
    directory: PathBuf,
    /// Permission bits of each file; directories may also be entered.
    mode: u32,
    /// Whether bundle documents and issuer URLs are written too.
    documents: bool,
    next: u64,
}

impl Folder {
    /// Writes to `directory`, where a set of an earlier run stays until it is replaced.
    pub fn new(directory: impl Into<PathBuf>, mode: u32) -> Self {
        let mut folder = Self { directory: directory.into(), mode, documents: false, next: 1 };
        folder.next = folder.sets().iter().filter_map(|set| number(set)).max().map_or(1, |last| last + 1);
        folder
    }

    /// Writes the bundle document of each identity's own trust domain too, and the URL of its JWT issuer, for what publishes
    /// them.
    #[must_use]
    pub fn with_documents(self, documents: bool) -> Self {
        Self { documents, ..self }
    }

    /// Replaces the current set with `credentials`. The set before it stays until the next one, for readers that are just
    /// opening it.
    ///
    /// # Errors
    /// See [`FileError`]; the current set stays.
    pub fn write(&mut self, credentials: &Credentials) -> Result<(), FileError> {
        let previous = std::fs::read_link(self.directory.join(CURRENT)).ok();
        let name = format!("{SET}{}", self.next);
        self.next += 1;
        let set = self.directory.join(&name);
        let written = self.write_set(&set, credentials).and_then(|()| self.make_current(&name));
        for old in self.sets() {
            let in_use = old == name && written.is_ok() || previous.as_deref() == Some(Path::new(&old));
            if !in_use {
                let _ = std::fs::remove_dir_all(self.directory.join(old));
            }
        }
        written
    }

    /// Removes every credential: the identity is withdrawn.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn withdraw(&mut self) -> Result<(), FileError> {
        let current = self.directory.join(CURRENT);
        match std::fs::remove_file(&current) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(FileError { path: current, source });
            }
            _ => {}
        }
        for set in self.sets() {
            let path = self.directory.join(set);
            std::fs::remove_dir_all(&path).map_err(|source| FileError { path, source })?;
        }
        Ok(())
    }

    /// Of the leaf that the files have of each of `svids`; `None` where they have none, or one that cannot be read.
    #[must_use]
    pub fn fingerprints(&self, svids: &[Svid]) -> Vec<Option<Fingerprint>> {
        let current = self.directory.join(CURRENT);
        let of_file = |name: String| {
            let chain = std::fs::read(current.join(name).join(CHAIN)).ok()?;
            Some(fingerprint(pem::parse(chain).ok()?.contents()))
        };
        directory_names(svids).into_iter().map(of_file).collect()
    }

    fn write_set(&self, set: &Path, credentials: &Credentials) -> Result<(), FileError> {
        self.make_directory(set)?;
        let mut bundles = BTreeMap::new();
        let names = directory_names(&credentials.svids);
        for (svid, name) in credentials.svids.iter().zip(names) {
            let directory = set.join(&name);
            if !name.is_empty() {
                self.make_directory(&directory)?;
            }
            self.write_svid(&directory, svid, credentials, &mut bundles)?;
        }
        Ok(())
    }

    /// `bundles` are the files of trust bundles that this set has: each is written once, however many identities trust it.
    fn write_svid(
        &self,
        directory: &Path,
        svid: &Svid,
        credentials: &Credentials,
        bundles: &mut BTreeMap<TrustDomain, PathBuf>,
    ) -> Result<(), FileError> {
        let key = svid.key.pkcs8_pem();
        let chain = chain_pem(&svid.chain);
        // Allocated once: growing would leave a copy of the key in freed memory.
        let mut bundle = Zeroizing::new(String::with_capacity(key.len() + chain.len()));
        bundle.push_str(&key);
        bundle.push_str(&chain);
        self.write_file(directory, CREDENTIAL_BUNDLE, bundle.as_bytes())?;
        link(directory, FORMER_CREDENTIAL_BUNDLE, CREDENTIAL_BUNDLE)?;
        self.write_file(directory, CHAIN, chain.as_bytes())?;
        self.write_file(directory, KEY, key.as_bytes())?;
        let own = svid.id.trust_domain();
        for domain in std::iter::once(own).chain(&svid.federates_with) {
            let Some(bundle) = credentials.trust.get(domain) else {
                continue;
            };
            let roots = bundle.x509_pem();
            if domain == own {
                self.write_file(directory, TRUST_ANCHORS, roots.as_bytes())?;
            }
            self.write_trust_bundle(directory, domain, roots.as_bytes(), bundles)?;
            if domain == own && self.documents {
                self.write_file(directory, &format!("{domain}{BUNDLE_DOCUMENT_SUFFIX}"), &bundle.to_json())?;
                if let Some(issuer) = credentials.terms.get(own).and_then(|terms| terms.jwt_issuer.as_ref()) {
                    self.write_file(directory, &format!("{domain}{JWT_ISSUER_SUFFIX}"), issuer.as_bytes())?;
                }
            }
        }
        if svid.tokens.is_empty() {
            return Ok(());
        }
        let jwt = directory.join("jwt");
        self.make_directory(&jwt)?;
        for (audience, token) in &svid.tokens {
            self.write_file(&jwt, &format!("{}.token", percent_encode(audience)), token.as_bytes())?;
        }
        Ok(())
    }

    /// Under the name of the draft, with a link from the former name. A domain whose name is too long for the draft's suffix
    /// keeps the former name.
    fn write_trust_bundle(
        &self,
        directory: &Path,
        domain: &TrustDomain,
        roots: &[u8],
        written: &mut BTreeMap<TrustDomain, PathBuf>,
    ) -> Result<(), FileError> {
        let (name, former) =
            (format!("{domain}{TRUST_BUNDLE_SUFFIX}"), format!("{domain}{FORMER_TRUST_BUNDLE_SUFFIX}"));
        if name.len() > NAME_MAX {
            return self.write_file(directory, &former, roots);
        }
        let path = directory.join(&name);
        match written.get(domain) {
            Some(file) => std::fs::hard_link(file, &path).map_err(|source| FileError { path, source })?,
            None => {
                self.write_file(directory, &name, roots)?;
                written.insert(domain.clone(), path);
            }
        }
        link(directory, &former, &name)
    }

    /// The link is relative because the workload mounts the directory elsewhere.
    fn make_current(&self, set: &str) -> Result<(), FileError> {
        let (next, current) = (self.directory.join(".credentials.next"), self.directory.join(CURRENT));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| FileError { path, source }
        };
        let _ = std::fs::remove_file(&next);
        symlink(set, &next).map_err(failed(&next))?;
        std::fs::rename(&next, &current).map_err(failed(&current))
    }

    /// A file whose name is too long for a file system is left out with a warning, instead of failing the whole set.
    fn write_file(&self, directory: &Path, name: &str, content: &[u8]) -> Result<(), FileError> {
        if name.len() > NAME_MAX {
            tracing::warn!(
                name,
                "left out of the files: its name is longer than {NAME_MAX} bytes; the Workload API has it"
            );
            return Ok(());
        }
        let path = directory.join(name);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.set_permissions(std::fs::Permissions::from_mode(self.mode))?;
            file.write_all(content)
        };
        write().map_err(|source| FileError { path: path.clone(), source })
    }

    /// Those who may read the files may enter: 0444 becomes 0755, 0440 becomes 0750, 0400 becomes 0700. The set-group-ID bit
    /// is inherited and kept: with an `fsGroup` the volume has it, and 0440 is for that group.
    fn make_directory(&self, path: &Path) -> Result<(), FileError> {
        let mode = 0o700 | self.mode | (self.mode >> 2 & 0o111);
        let make = || {
            DirBuilder::new().mode(0o700).create(path)?;
            let inherited = std::fs::metadata(path)?.permissions().mode() & SET_GROUP_ID;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | inherited))
        };
        make().map_err(|source| FileError { path: path.to_owned(), source })
    }

    fn sets(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| number(name).is_some()).collect()
    }
}

/// Makes `former` a relative link to `name` beside it.
fn link(directory: &Path, former: &str, name: &str) -> Result<(), FileError> {
    let path = directory.join(former);
    symlink(name, &path).map_err(|source| FileError { path, source })
}

fn number(set: &str) -> Option<u64> {
    set.strip_prefix(SET)?.parse().ok()
}

fn chain_pem(chain: &[Vec<u8>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    chain.iter().map(|der| pem::encode_config(&pem::Pem::new("CERTIFICATE", der.clone()), config)).collect()
}

/// The default identity's files are at the top; those of each further one in a directory named by its hint or, when that
/// cannot be a file name, by its position from 2.
fn directory_names(svids: &[Svid]) -> Vec<String> {
    let mut taken = BTreeSet::from(["jwt".to_owned()]);
    let name = |(position, svid): (usize, &Svid)| {
        if position == 1 {
            return String::new();
        }
        let hint = percent_encode(&svid.hint);
        let is_name = !hint.is_empty() && hint.len() <= NAME_MAX && !hint.starts_with('.') && !hint.contains(".pem");
        let is_free = is_name && !matches!(hint.as_str(), CHAIN | KEY | TRUST_ANCHORS) && hint.parse::<u64>().is_err();
        if is_free && taken.insert(hint.clone()) { hint } else { position.to_string() }
    };
    (1..).zip(svids).map(name).collect()
}

/// Everything but RFC 3986's unreserved characters becomes `%XX`.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
