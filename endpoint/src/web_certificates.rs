//! Certificates of the web from mounted Secrets, one directory each, chosen by the server name of a handshake.

use std::{
    collections::{BTreeMap, btree_map::Entry as MapEntry},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use countersign_contract::files::{CHAIN, KEY};
use countersign_runtime::readiness::ReadinessCheck;
use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use zeroize::Zeroizing;

use crate::{
    certificate_files::{CertificateFileError, ServableCertificate},
    set_reader::{ReadError, read_file},
};

/// How often the files are compared with what was read; kubelets themselves update them within a minute or so.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// The content of one directory.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// `tls.crt`.
    pub chain: Vec<u8>,
    /// `tls.key`.
    pub key: Zeroizing<Vec<u8>>,
}

/// The certificates that are served; never changed, only replaced.
#[derive(Clone, Debug, Default)]
pub struct WebCertificates {
    /// By name of their directories.
    all: BTreeMap<String, ServableCertificate>,
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
}

impl WebCertificates {
    /// Those of these pairs by name. Of a pair that cannot be read, the one of `before` stays, as the kubelet may be exchanging
    /// the files; its error is returned beside it. What is no longer there is not served.
    #[must_use]
    pub fn build(pairs: &BTreeMap<String, Pair>, before: &Self) -> (Self, Vec<(String, CertificateFileError)>) {
        let (mut all, mut errors) = (BTreeMap::new(), Vec::new());
        for (name, pair) in pairs {
            match ServableCertificate::read(&pair.chain, &pair.key) {
                Ok(certificate) => drop(all.insert(name.clone(), certificate)),
                Err(error) => {
                    errors.push((name.clone(), error));
                    if let Some(certificate) = before.all.get(name) {
                        all.insert(name.clone(), certificate.clone());
                    }
                }
            }
        }
        let mut by_name = BTreeMap::new();
        for certificate in all.values() {
            for dns_name in &certificate.dns_names {
                // Of two for a name, the one whose directory is first.
                if let MapEntry::Vacant(place) = by_name.entry(dns_name.clone()) {
                    place.insert(Arc::clone(&certificate.certified_key));
                }
            }
        }
        (Self { all, by_name }, errors)
    }

    /// The one for a server name: exactly, then by a wildcard for its first label (RFC 9525, section 6.3), otherwise the first.
    #[must_use]
    pub fn certificate(&self, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = server_name.unwrap_or_default().to_ascii_lowercase();
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        let default = || self.all.values().next().map(|first| &first.certified_key);
        self.by_name.get(&name).or_else(wildcard).or_else(default).map(Arc::clone)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// When the first of them ends.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.all.values().map(|certificate| certificate.not_after).min()
    }
}

/// The current certificates; each handshake takes one of its moment.
#[derive(Debug, Default)]
pub struct ServedWebCertificates(ArcSwap<WebCertificates>);

impl ServedWebCertificates {
    /// Replaces them.
    pub fn publish(&self, certificates: WebCertificates) {
        self.0.store(Arc::new(certificates));
    }

    /// The current ones.
    #[must_use]
    pub fn current(&self) -> Arc<WebCertificates> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for ServedWebCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificate(hello.server_name())
    }
}

/// Reads the certificates of a directory again and again.
#[derive(Debug)]
pub struct WebCertificateReader {
    directory: PathBuf,
    read: Option<BTreeMap<String, Pair>>,
    /// Where reading last failed.
    problem: Option<String>,
}

/// What was found.
#[derive(Debug)]
pub enum FoundPairs {
    /// What was read last.
    Unchanged,
    /// Others: the certificates, how many pairs there are, and which of them cannot be used.
    New(WebCertificates, usize, Vec<(String, CertificateFileError)>),
    /// The directory cannot be read; the error is reported once.
    Unreadable(ReadError),
}

impl WebCertificateReader {
    /// Of a directory that holds a directory for each certificate.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), read: None, problem: None }
    }

    /// Reads all pairs; when they are others than before, makes certificates of them.
    pub fn check(&mut self, before: &WebCertificates) -> FoundPairs {
        match read_pairs(&self.directory) {
            Ok(pairs) if self.read.as_ref() == Some(&pairs) => {
                self.problem = None;
                FoundPairs::Unchanged
            }
            Ok(pairs) => {
                let (certificates, errors) = WebCertificates::build(&pairs, before);
                let count = pairs.len();
                (self.read, self.problem) = (Some(pairs), None);
                FoundPairs::New(certificates, count, errors)
            }
            Err(error) => {
                let text = error.to_string();
                if self.problem.as_ref() == Some(&text) {
                    return FoundPairs::Unchanged;
                }
                self.problem = Some(text);
                FoundPairs::Unreadable(error)
            }
        }
    }
}

/// Publishes the certificates again and again. `usable` passes while there is a certificate, or no pair at all; `first` is notified
/// once there is a certificate.
pub async fn follow(
    mut reader: WebCertificateReader,
    served: Arc<ServedWebCertificates>,
    expiry: Gauge,
    usable: ReadinessCheck,
    first: &Notify,
) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let before = served.current();
        let checked = tokio::task::spawn_blocking(move || {
            let found = reader.check(&before);
            (reader, found)
        });
        let Ok((next, found)) = checked.await else {
            // The runtime shuts down.
            return;
        };
        reader = next;
        match found {
            FoundPairs::Unchanged => {}
            FoundPairs::New(certificates, pairs, errors) => {
                for (directory, error) in errors {
                    tracing::warn!(directory, %error, "a web certificate cannot be used; the one before stays");
                }
                tracing::info!(pairs, "read the web certificates");
                expiry.set(certificates.expires().map_or(0, Timestamp::as_second));
                let is_empty = certificates.is_empty();
                served.publish(certificates);
                if !is_empty {
                    first.notify_one();
                }
                let is_usable = pairs == 0 || !is_empty;
                if is_usable { usable.pass() } else { usable.fail() }
            }
            FoundPairs::Unreadable(error) => {
                tracing::warn!(%error, "the web certificates cannot be read; those before stay");
            }
        }
    }
}

/// A directory without files is that of an optional Secret which is not there.
fn read_pairs(directory: &Path) -> Result<BTreeMap<String, Pair>, ReadError> {
    let failed = |source| ReadError::Io { path: directory.to_owned(), source };
    let mut pairs = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_dir()) else {
            continue;
        };
        let file = |name: &str| match read_file(&path.join(name)) {
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        };
        if let (Some(chain), Some(key)) = (file(CHAIN)?, file(KEY)?) {
            pairs.insert(name.to_owned(), Pair { chain: chain.to_vec(), key });
        }
    }
    Ok(pairs)
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(redacted)")
    }
}

#[cfg(test)]
#[path = "web_certificates_tests.rs"]
mod tests;
