//! Follows the agent's link to the current set, and publishes each set that can be read.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use countersign_contract::files::{BUNDLE_DOCUMENT_SUFFIX, CHAIN, CREDENTIALS, JWT_ISSUER_SUFFIX, KEY};
use countersign_core::bundle::MAX_BUNDLE_LENGTH;
use countersign_runtime::readiness::ReadinessCheck;
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

use crate::{
    host_names::HostNames,
    metrics::SetMetrics,
    publication::{Entry, Publication, Published, SetError},
};

/// How often the link is looked at; that costs two system calls.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// The directory of tokens, in which there are no credentials.
const TOKENS: &str = "jwt";

/// What was found of the current set.
#[derive(Debug)]
pub enum Found {
    /// It is the one that was read last, or its error is the one that was reported last.
    Unchanged,
    /// Another one.
    New(Box<Publication>),
    /// Another one that cannot be published; the error is reported once.
    Unreadable(ReadError),
}

/// Why a set cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was read cannot be published.
    #[error(transparent)]
    Set(#[from] SetError),
}

/// Reads sets of a directory.
#[derive(Debug)]
pub struct SetReader {
    directory: PathBuf,
    hosts: HostNames,
    /// The set that was published last.
    read: Option<SetName>,
    /// What was last reported.
    problem: Option<String>,
}

/// What tells one set from another.
#[derive(Debug, PartialEq, Eq)]
struct SetName {
    /// Of the link.
    target: PathBuf,
    /// Of the directory: an agent that begins anew may use a name again.
    inode: u64,
    /// Of the directory, in seconds and nanoseconds since 1970.
    modified: (i64, i64),
}

impl SetName {
    fn read(link: &Path) -> io::Result<Self> {
        let target = fs::read_link(link)?;
        let metadata = fs::metadata(link)?;
        Ok(Self { target, inode: metadata.ino(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

impl SetReader {
    /// Of the directory of a session.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, hosts: HostNames) -> Self {
        Self { directory: directory.into(), hosts, read: None, problem: None }
    }

    /// Reads the set if the link leads to another one than before. One that cannot be read is tried again at every call: it may
    /// be one that the agent was removing.
    pub fn check(&mut self, now: Timestamp) -> Found {
        let link = self.directory.join(CREDENTIALS);
        let set = SetName::read(&link).map_err(|source| ReadError::Io { path: link, source });
        if set.as_ref().is_ok_and(|set| self.read.as_ref() == Some(set)) {
            return Found::Unchanged;
        }
        match set.and_then(|set| Ok((self.publication(&set.target, now)?, set))) {
            Ok((publication, set)) => {
                (self.read, self.problem) = (Some(set), None);
                Found::New(Box::new(publication))
            }
            Err(error) => {
                let text = error.to_string();
                if self.problem.as_ref() == Some(&text) {
                    return Found::Unchanged;
                }
                self.problem = Some(text);
                Found::Unreadable(error)
            }
        }
    }

    fn publication(&self, target: &Path, now: Timestamp) -> Result<Publication, ReadError> {
        // By the link's target, so that all files are of one set.
        let entries = read_set(&self.directory.join(target))?;
        Ok(Publication::build(&entries, &self.hosts, now)?)
    }
}

/// Publishes each new set, for ever. `ready` passes with the first one.
pub async fn follow(mut reader: SetReader, published: Arc<Published>, metrics: SetMetrics, ready: ReadinessCheck) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let checked = tokio::task::spawn_blocking(move || {
            let found = reader.check(Timestamp::now());
            (reader, found)
        });
        let Ok((next, found)) = checked.await else {
            // The runtime shuts down.
            return;
        };
        reader = next;
        match found {
            Found::Unchanged => {}
            Found::New(publication) => {
                report(&publication);
                metrics.published(&publication, Timestamp::now());
                published.publish(*publication);
                ready.pass();
            }
            Found::Unreadable(error) => {
                metrics.unreadable();
                let still_serves = published.current().is_some();
                tracing::warn!(%error, still_serves, "the set of credentials cannot be published; the last one stays");
            }
        }
    }
}

fn report(publication: &Publication) {
    tracing::info!(trust_domains = publication.documents.len(), expires = %publication.expires, "published a set");
    for trust_domain in &publication.without_document {
        tracing::warn!(%trust_domain, "not published: the set has no bundle document of it");
    }
    for trust_domain in publication.documents.contradictory() {
        tracing::warn!(
            %trust_domain,
            "its JWT issuer is not served: another trust domain has it too; give each its own in spec.authority.jwt.issuer"
        );
    }
}

fn read_set(set: &Path) -> Result<Vec<Entry>, ReadError> {
    let mut entries = read_directory(set, "")?;
    for (name, path) in list(set)? {
        if name != TOKENS && path.is_dir() {
            entries.extend(read_directory(&path, &format!("{name}/"))?);
        }
    }
    Ok(entries)
}

/// The files that matter.
fn read_directory(directory: &Path, prefix: &str) -> Result<Vec<Entry>, ReadError> {
    let matters = |name: &str| {
        [CHAIN, KEY].contains(&name)
            || [BUNDLE_DOCUMENT_SUFFIX, JWT_ISSUER_SUFFIX].iter().any(|end| name.ends_with(end))
    };
    let files = list(directory)?.into_iter().filter(|(name, _)| matters(name));
    files.map(|(name, path)| Ok(Entry { path: format!("{prefix}{name}"), content: read_file(&path)? })).collect()
}

/// Names that are not text are none of the agent's.
fn list(directory: &Path) -> Result<Vec<(String, PathBuf)>, ReadError> {
    let failed = |source| ReadError::Io { path: directory.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

/// At most one byte more than the longest document, which is then refused as too long.
pub(crate) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    // Allocated once: growing would leave a copy of a key in freed memory.
    let most = MAX_BUNDLE_LENGTH + 1;
    let mut content =
        Zeroizing::new(Vec::with_capacity(usize::try_from(length).map_or(most, |length| length.min(most)) + 1));
    file.take(most as u64).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

#[cfg(test)]
#[path = "set_reader_tests.rs"]
mod tests;
